//! What ACPI says about this machine: CPUs, interrupt controllers, timers, PCI, and how to turn it off.
//!
//! The tables are found through the root pointer that the loader handed over, or the one in the firmware's memory; the `acpi` crate
//! walks them, `madt.rs` reads what it leaves. There is no AML interpreter: power-off takes the one value it needs from the DSDT's
//! bytes.
//!
//! Next: `apic.rs`, `clock.rs`, `power.rs`, which use the answers.

use core::ptr::NonNull;

use acpi::address::{AddressSpace, GenericAddress};
use acpi::fadt::Fadt;
use acpi::hpet::HpetTable;
use acpi::madt::Madt;
use acpi::mcfg::Mcfg;
use acpi::{AcpiHandler, AcpiTable, AcpiTables, PhysicalMapping};
use conquer_once::spin::OnceCell;

use super::boot_paging::map_device;
use super::entry::DIRECT_MAP;
use super::madt::{self, Entry, Signal};
use super::stacks::MAX_CPUS;
use crate::arch::boot_info::BootInfo;

const IO_APICS_MAX: usize = 8;
const ISA_LINES: usize = 16;
const PCI_REGIONS_MAX: usize = 4;

/// A register somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// An I/O port.
    Port(u16),
    /// A physical address.
    Memory(u64),
}

/// Where an interrupt line arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Its global interrupt number.
    pub global: u32,
    /// How it is signalled.
    pub signal: Signal,
}

/// A window onto the configuration space of PCI buses (the MCFG table).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciRegion {
    /// Physical address of the window for bus 0 of the segment.
    pub address: u64,
    /// The segment.
    pub segment: u16,
    /// The first bus it shows.
    pub first_bus: u8,
    /// The last.
    pub last_bus: u8,
}

/// How the machine is turned off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerOff {
    /// The PM1a control register, and the sleep type for it.
    pub pm1a: Option<(u16, u8)>,
    /// The PM1b control register, where there is one.
    pub pm1b: Option<(u16, u8)>,
    /// The sleep control register of a machine without PM1, and the sleep type.
    pub sleep_control: Option<(Register, u8)>,
    /// What to write where so that the firmware hands the registers over: port and value.
    pub enable: Option<(u16, u8)>,
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Platform {
    cpus: [u32; MAX_CPUS],
    cpu_count: usize,
    io_apics: [(u64, u32); IO_APICS_MAX],
    io_apic_count: usize,
    isa: [Route; ISA_LINES],
    pci: [Option<PciRegion>; PCI_REGIONS_MAX],
    /// Where the local APICs are.
    pub local_apic: u64,
    /// The high-precision timer's registers.
    pub hpet: Option<u64>,
    /// The power management timer: its register, and whether it has 32 bits instead of 24.
    pub pm_timer: Option<(Register, bool)>,
    /// How the machine is turned off.
    pub power_off: PowerOff,
    /// What to write where to reset the machine.
    pub reset: Option<(Register, u8)>,
    /// The CMOS register that holds the century, or 0.
    pub century: u8,
    /// The table DSDT, header included: what describes devices that cannot be enumerated.
    pub dsdt: &'static [u8],
}

impl Platform {
    /// A PC without ACPI: one CPU, one I/O APIC, lines that arrive under their own numbers, but for the timer's.
    const fn without_acpi() -> Platform {
        let mut isa = [Route { global: 0, signal: Signal { is_level: false, is_active_low: false } }; ISA_LINES];
        let mut line = 0;
        while line < ISA_LINES {
            isa[line].global = line as u32;
            line += 1;
        }
        let mut io_apics = [(0, 0); IO_APICS_MAX];
        io_apics[0] = (0xfec0_0000, 0);
        Platform {
            cpus: [0; MAX_CPUS],
            cpu_count: 0,
            io_apics,
            io_apic_count: 1,
            isa,
            pci: [None; PCI_REGIONS_MAX],
            local_apic: 0xfee0_0000,
            hpet: None,
            pm_timer: None,
            power_off: PowerOff { pm1a: None, pm1b: None, sleep_control: None, enable: None },
            reset: None,
            century: 0,
            dsdt: &[],
        }
    }

    /// The local APIC numbers of the CPUs that can be used, the boot CPU among them; empty if nobody says.
    pub fn cpus(&self) -> &[u32] {
        &self.cpus[..self.cpu_count]
    }

    /// The I/O APICs: physical address, first global interrupt number.
    pub fn io_apics(&self) -> &[(u64, u32)] {
        &self.io_apics[..self.io_apic_count]
    }

    /// Where an ISA interrupt arrives; `None`: there is no such line.
    pub fn isa(&self, line: u8) -> Option<Route> {
        self.isa.get(usize::from(line)).copied()
    }

    /// The windows onto PCI configuration space.
    pub fn pci_regions(&self) -> impl Iterator<Item = PciRegion> {
        self.pci.iter().copied().flatten()
    }
}

static PLATFORM: OnceCell<Platform> = OnceCell::uninit();
static WITHOUT_ACPI: Platform = Platform::without_acpi();

/// What is known about the machine; before [`init`], what every PC is like.
pub fn platform() -> &'static Platform {
    PLATFORM.try_get().unwrap_or(&WITHOUT_ACPI)
}

/// Reads the tables.
pub fn init(info: &'static BootInfo) {
    let handler = Memory { info };
    // SAFETY: the root pointer is where the loader or the firmware says; everything is checked by signature and checksum.
    let tables = unsafe {
        match info.rsdp {
            Some(address) => AcpiTables::from_rsdp(handler, address as usize),
            None => AcpiTables::search_for_rsdp_bios(handler),
        }
    };
    let platform = match tables {
        Ok(tables) => read(&tables),
        Err(error) => {
            log::warn!("no ACPI tables: {error:?}");
            Platform::without_acpi()
        }
    };
    log::debug!("{:x?}", Platform { dsdt: &[], ..platform.clone() });
    let _ = PLATFORM.try_init_once(|| platform);
}

fn read(tables: &AcpiTables<Memory>) -> Platform {
    let mut platform = Platform::without_acpi();
    if let Ok(table) = tables.find_table::<Madt>() {
        platform.local_apic = u64::from(table.get().local_apic_address);
        platform.io_apic_count = 0;
        madt::entries(bytes_of(&table)).for_each(|entry| platform.note(entry));
    }
    if let Ok(table) = tables.find_table::<Fadt>() {
        platform.note_fixed(&table, tables);
    }
    if let Ok(table) = tables.find_table::<HpetTable>() {
        // The block id (4 bytes) and a generic address (12 bytes, the last 8 its value) follow the header.
        const ADDRESS: usize = 44;
        platform.hpet = bytes_of(&table)
            .get(ADDRESS..ADDRESS + 8)
            .and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    }
    if let Ok(table) = tables.find_table::<Mcfg>() {
        for (slot, entry) in platform.pci.iter_mut().zip(table.entries()) {
            *slot = Some(PciRegion {
                address: entry.base_address,
                segment: entry.pci_segment_group,
                first_bus: entry.bus_number_start,
                last_bus: entry.bus_number_end,
            });
        }
    }
    platform
}

impl Platform {
    fn note(&mut self, entry: Entry) {
        match entry {
            // A CPU may be told of twice, by its APIC's number and by its x2APIC's.
            Entry::Cpu(id) if self.cpus().contains(&id) => {}
            Entry::Cpu(id) => push(&mut self.cpus, &mut self.cpu_count, id),
            Entry::IoApic { address, first } => push(&mut self.io_apics, &mut self.io_apic_count, (address, first)),
            Entry::Override { isa, global, signal } => {
                if let Some(route) = self.isa.get_mut(usize::from(isa)) {
                    *route = Route { global, signal };
                }
            }
            Entry::LocalApicAddress(address) => self.local_apic = address,
        }
    }

    fn note_fixed(&mut self, fadt: &Fadt, tables: &AcpiTables<Memory>) {
        self.dsdt = fadt.dsdt_address().map_or(&[], |address| tables_bytes(tables, address as u64));
        let types = madt::power_off_types(self.dsdt);
        let port = |register: Option<GenericAddress>| match register.and_then(register_of)? {
            Register::Port(port) => Some(port),
            Register::Memory(_) => None,
        };
        self.century = fadt.century;
        self.pm_timer = fadt
            .pm_timer_block()
            .ok()
            .flatten()
            .and_then(register_of)
            .map(|register| (register, { fadt.flags }.pm_timer_is_32_bit()));
        if { fadt.flags }.supports_system_reset_via_fadt() {
            self.reset = fadt.reset_register().ok().and_then(register_of).map(|register| (register, fadt.reset_value));
        }
        if { fadt.flags }.system_is_hw_reduced_acpi() {
            let control = fadt.sleep_control_register().ok().flatten().and_then(register_of);
            self.power_off.sleep_control = control.zip(types.map(|(kind, _)| kind));
        } else if let Some((a, b)) = types {
            self.power_off.pm1a = port(fadt.pm1a_control_block().ok()).map(|port| (port, a));
            self.power_off.pm1b = port(fadt.pm1b_control_block().ok().flatten()).map(|port| (port, b));
            let (command, value) = (fadt.smi_cmd_port, fadt.acpi_enable);
            self.power_off.enable =
                u16::try_from(command).ok().filter(|&port| port != 0 && value != 0).map(|port| (port, value));
        }
    }
}

fn push<T: Copy>(array: &mut [T], count: &mut usize, item: T) {
    if let Some(slot) = array.get_mut(*count) {
        *slot = item;
        *count += 1;
    }
}

fn register_of(address: GenericAddress) -> Option<Register> {
    match address.address_space {
        _ if address.address == 0 => None,
        AddressSpace::SystemIo => u16::try_from(address.address).ok().map(Register::Port),
        AddressSpace::SystemMemory => Some(Register::Memory(address.address)),
        _ => None,
    }
}

fn bytes_of<T: AcpiTable>(table: &PhysicalMapping<Memory, T>) -> &[u8] {
    // SAFETY: the mapping covers `region_length` bytes of a table that nobody writes to, and is never undone.
    unsafe { core::slice::from_raw_parts(table.virtual_start().as_ptr().cast(), table.region_length()) }
}

/// The bytes of the table at a physical address, as many as its header says, within reason.
fn tables_bytes(_: &AcpiTables<Memory>, address: u64) -> &'static [u8] {
    const LENGTH: u64 = 4;
    const REASON: u32 = 4 << 20;
    let memory = Memory { info: crate::arch::boot_info() };
    // SAFETY: the address comes from a checked table; the mapping stays; tables are not written to.
    unsafe {
        let length = memory.at(address + LENGTH, 4).cast::<u32>().read_unaligned().min(REASON);
        core::slice::from_raw_parts(memory.at(address, length.into()).as_ptr(), length as usize)
    }
}

/// How the `acpi` crate reaches physical memory: through the direct map where that is RAM, else through a new mapping.
#[derive(Clone, Copy)]
struct Memory {
    info: &'static BootInfo,
}

/// What is shown where nothing can be mapped.
static NOTHING: [u64; 512] = [0; 512];

impl Memory {
    fn at(self, address: u64, len: u64) -> NonNull<u8> {
        let Some(end) = address.checked_add(len) else {
            return NonNull::from(&NOTHING).cast();
        };
        let covers = |&&(start, stop): &&(u64, u64)| start <= address && end <= stop;
        let ram =
            self.info.memory.iter().filter(|region| region.kind.is_ram()).map(|region| (region.start, region.end));
        if ram.into_iter().any(|region| covers(&&region)) {
            return NonNull::new((DIRECT_MAP + address) as *mut u8).expect("the direct map does not begin at zero");
        }
        map_device(address, len).unwrap_or(NonNull::from(&NOTHING).cast())
    }
}

impl AcpiHandler for Memory {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        // SAFETY: `at` returns memory that stays mapped; where it could not map, the crate finds no signature in the zeros.
        unsafe { PhysicalMapping::new(address, self.at(address as u64, size as u64).cast(), size, size, *self) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}
