//! What this CPU can do, asked once.
//!
//! [`CpuFeatures::detect`] reads CPUID before the final page tables are built, because what it finds decides how they look.
//! Rouse runs on any 64-bit CPU with NX; each field below is something it uses when it is there.
//!
//! Next: `boot_paging.rs`.

use conquer_once::spin::OnceCell;
use executor::sync::get_or_init;
use raw_cpuid::CpuId;

/// The features this kernel makes a difference for.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the manual")]
pub struct CpuFeatures {
    pub no_execute: bool,
    pub one_gib_pages: bool,
    pub smep: bool,
    pub smap: bool,
    pub umip: bool,
    pub x2apic: bool,
    pub tsc_deadline: bool,
    pub invariant_tsc: bool,
    pub hypervisor: bool,
    pub xsave: bool,
    pub xsaveopt: bool,
    pub rdrand: bool,
    pub rdseed: bool,
    pub rdtscp: bool,
    pub pat: bool,
    pub global_pages: bool,
    /// CPUID 1, EDX: what programs get as AT_HWCAP.
    pub hwcap: u32,
    /// The local APIC's id of the CPU that asked.
    pub apic_id: u32,
    /// Bits of a physical address.
    pub physical_bits: u8,
}

static FEATURES: OnceCell<CpuFeatures> = OnceCell::uninit();

impl CpuFeatures {
    /// Asks the CPU.
    pub fn detect() -> CpuFeatures {
        let cpu = CpuId::new();
        let basic = cpu.get_feature_info();
        let extended = cpu.get_extended_feature_info();
        let amd = cpu.get_extended_processor_and_feature_identifiers();
        let basic_has = |f: fn(&raw_cpuid::FeatureInfo) -> bool| basic.as_ref().is_some_and(f);
        let extended_has = |f: fn(&raw_cpuid::ExtendedFeatures) -> bool| extended.as_ref().is_some_and(f);
        let xsave = basic_has(|b| b.has_xsave());
        CpuFeatures {
            no_execute: amd.as_ref().is_some_and(|a| a.has_execute_disable()),
            one_gib_pages: amd.as_ref().is_some_and(|a| a.has_1gib_pages()),
            rdtscp: amd.as_ref().is_some_and(|a| a.has_rdtscp()),
            smep: extended_has(|e| e.has_smep()),
            smap: extended_has(|e| e.has_smap()),
            umip: extended_has(|e| e.has_umip()),
            rdseed: extended_has(|e| e.has_rdseed()),
            x2apic: basic_has(|b| b.has_x2apic()),
            tsc_deadline: basic_has(|b| b.has_tsc_deadline()),
            rdrand: basic_has(|b| b.has_rdrand()),
            pat: basic_has(|b| b.has_pat()),
            global_pages: basic_has(|b| b.has_pge()),
            hypervisor: basic_has(|b| b.has_hypervisor()),
            invariant_tsc: cpu.get_advanced_power_mgmt_info().is_some_and(|power| power.has_invariant_tsc()),
            xsaveopt: xsave && cpu.get_extended_state_info().is_some_and(|state| state.has_xsaveopt()),
            xsave,
            hwcap: raw_cpuid::cpuid!(1).edx,
            apic_id: cpu
                .get_extended_topology_info()
                .and_then(|mut levels| levels.next())
                .map(|level| level.x2apic_id())
                .or_else(|| basic.as_ref().map(|b| b.initial_local_apic_id().into()))
                .unwrap_or(0),
            physical_bits: cpu
                .get_processor_capacity_feature_info()
                .map_or(36, |capacity| capacity.physical_address_bits()),
        }
    }
}

/// What the boot CPU can do; asked of it on the first call.
pub fn cpu_features() -> &'static CpuFeatures {
    get_or_init(&FEATURES, CpuFeatures::detect)
}

/// What programs get as AT_HWCAP (CPUID 1, EDX) and AT_HWCAP2 (nothing: FSGSBASE is off, and MONITOR is the kernel's).
pub fn hardware_capabilities() -> (u64, u64) {
    (cpu_features().hwcap.into(), 0)
}
