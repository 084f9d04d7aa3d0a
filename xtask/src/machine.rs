//! What is to be started: the options that `cargo run`, `exec`, `bench` and the tests share, and QEMU's command line made of them.

use crate::kernel::{Kernel, Profile};
use crate::root::{Addition, Prepared, Root};
use crate::{image, packages, progress};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A machine that QEMU knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// A PC with PCI Express.
    #[default]
    Q35,
    /// A PC with PCI, as of 1996.
    Pc,
    /// A machine without PCI, made for short starts.
    Microvm,
}

/// The firmware that runs before the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// OVMF.
    Uefi,
}

/// How Rouse comes into the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Medium {
    /// QEMU loads the kernel itself; under UEFI, where it cannot, a stick.
    #[default]
    Direct,
    /// The image, as a USB stick.
    Usb,
    /// The image, as a CD.
    Cd,
}

/// The machine and what runs on it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 1, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub smp: u32,
    /// Memory, as QEMU takes it (256M, 2G)
    #[arg(long, value_name = "SIZE", default_value = "512M", global = true)]
    pub memory: String,
    /// The machine that QEMU plays
    #[arg(long, value_enum, value_name = "q35|pc|microvm", hide_possible_values = true, default_value_t = Model::Q35, global = true)]
    pub machine: Model,
    /// The firmware
    #[arg(long, value_enum, value_name = "bios|uefi", hide_possible_values = true, default_value_t = Firmware::Bios, global = true)]
    pub firmware: Firmware,
    /// How Rouse comes into the machine: loaded by QEMU, or as an image on a USB stick or a CD
    #[arg(long, value_enum, value_name = "direct|usb|cd", hide_possible_values = true, default_value_t = Medium::Direct, global = true)]
    pub medium: Medium,
    /// The processor's model, as QEMU names it (default: QEMU's default; max: all it has)
    #[arg(long, value_name = "MODEL", global = true)]
    pub cpu: Option<String>,
    /// Open a window with the machine's screen and keyboard
    #[arg(long, global = true)]
    pub display: bool,
    /// End the machine after so many seconds
    #[arg(long, value_name = "SECONDS", global = true)]
    pub timeout: Option<u64>,
    /// Put a file or folder into the root; a program's shared libraries come along
    #[arg(long, value_name = "HOST[=GUEST]", global = true)]
    pub add: Vec<OsString>,
    /// The root: busybox, debian, a folder, or an ext4 image (never written)
    #[arg(long, value_name = "ROOT", default_value = "busybox", global = true)]
    pub root: String,
    /// Debian packages added to the debian root
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', global = true)]
    pub packages: Vec<String>,
    /// Attach a disk image (after the root disk, if there is one); a kernel that writes to disks changes it
    #[arg(long, value_name = "FILE[,virtio]", global = true)]
    pub disk: Vec<OsString>,
    /// The kernel: rouse, linux (Debian's, unpacked and not installed), or a file
    #[arg(long, value_name = "KERNEL", default_value = "rouse", global = true)]
    pub kernel: String,
    /// Build Rouse with its own checks: debug assertions, lock order, overflow
    #[arg(long, global = true)]
    pub checked: bool,
    /// Compile Rouse as a whole, as `bench` and `image` do: a sixth fewer instructions, for minutes of compiling
    #[arg(long, global = true)]
    pub optimized: bool,
    /// Let one guest instruction be one nanosecond, so that runs repeat
    #[arg(long, global = true)]
    pub icount: bool,
    /// Wait for gdb on port 1234 before the first instruction
    #[arg(long, global = true)]
    pub gdb: bool,
    /// Add to the kernel's command line
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true, global = true)]
    pub append: Vec<String>,
    /// Pass an argument to QEMU
    #[arg(long, value_name = "ARG", allow_hyphen_values = true, global = true)]
    pub qemu_arg: Vec<OsString>,
    /// Show the kernel's log on standard error
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Install missing Debian packages without asking
    #[arg(long, short, global = true)]
    pub yes: bool,
}

impl Default for Options {
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct None {
            #[command(flatten)]
            options: Options,
        }
        <None as clap::Parser>::parse_from(["xtask"]).options
    }
}

impl Options {
    /// The same machine with Linux on it.
    #[must_use]
    pub fn on_linux(&self) -> Self {
        Self { kernel: "linux".into(), ..self.clone() }
    }

    /// Which kernel.
    pub fn kernel(&self) -> Kernel {
        Kernel::named(&self.kernel)
    }

    /// How Rouse is compiled for this machine.
    pub fn profile(&self) -> Profile {
        match (self.gdb, self.checked, self.optimized) {
            (true, ..) => Profile::Debugged,
            (false, true, _) => Profile::Checked,
            (false, false, true) => Profile::Optimized,
            (false, false, false) => Profile::Fast,
        }
    }

    /// How long the machine may run.
    pub fn time_limit(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_secs)
    }

    /// Provides everything that starting the machine needs, and answers QEMU's command line so far: what is missing are the
    /// console and the ports. `words` go on the kernel's command line.
    ///
    /// # Errors
    /// Something cannot be provided.
    pub fn command(&self, words: &[String]) -> Result<Command> {
        packages::ensure(&[packages::QEMU])?;
        let kernel = self.kernel();
        let image = kernel.file(self.profile())?;
        let additions: Vec<_> = self.add.iter().map(|text| Addition::parse(text)).collect();
        let root = Root::named(&self.root, &self.packages)?;
        let prepared = root.prepare(&additions, kernel.is_linux(), self.verbose)?;
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
        self.hardware(&mut qemu)?;
        // Ahead of the disks, so that its number does not depend on them.
        qemu.args(["-device", &format!("{},id=ports,max_ports=8", self.virtio("serial"))]);
        self.disks(&mut qemu, &prepared)?;
        let line = self.command_line(&prepared, words);
        match self.medium() {
            Medium::Direct => {
                qemu.arg("-kernel").arg(image).arg("-initrd").arg(&prepared.initrd).arg("-append").arg(line);
            }
            medium => self.insert(&mut qemu, medium, &image::cached(&image, &prepared.initrd, &line)?)?,
        }
        qemu.args(&self.qemu_arg);
        Ok(qemu)
    }

    /// Adds a port of the virtio console to QEMU's command line. Answers our end of it, and QEMU's, which the command must inherit.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn add_port(qemu: &mut Command, port: u32) -> Result<(UnixStream, OwnedFd)> {
        let (here, there) = UnixStream::pair()?;
        qemu.args(["-chardev", &format!("socket,id=port{port},fd={}", there.as_raw_fd())]);
        qemu.args(["-device", &format!("virtserialport,bus=ports.0,nr={port},chardev=port{port},id=p{port}")]);
        Ok((here, there.into()))
    }

    fn hardware(&self, qemu: &mut Command) -> Result<()> {
        let model = match self.machine {
            Model::Q35 => "q35",
            Model::Pc => "pc",
            Model::Microvm => "microvm",
        };
        qemu.args(["-machine", model, "-m", &self.memory, "-smp", &self.smp.to_string()]);
        if let Some(cpu) = &self.cpu {
            qemu.args(["-cpu", cpu]);
        }
        // Rouse ends the machine, with a status, by a write to this port.
        qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        match (self.display, self.machine) {
            (true, Model::Microvm) => bail!("a microvm has no screen"),
            (true, _) => qemu.args(["-vga", "std"]),
            (false, _) => qemu.args(["-display", "none"]),
        };
        if self.icount {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        if self.gdb {
            // This computer's users only: whoever may talk to it owns the machine.
            qemu.args(["-gdb", "tcp:127.0.0.1:1234", "-S"]);
            progress::note(
                "waiting for a debugger: gdb target/kernel-debugged/x86_64-unknown-none/kernel/rouse -x xtask/gdb/rouse.py -ex 'target remote :1234'",
            );
        }
        if self.firmware == Firmware::Uefi {
            packages::ensure(&[packages::OVMF])?;
            let variables = packages::OVMF.file.replace("CODE", "VARS");
            qemu.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={}", packages::OVMF.file)]);
            // The firmware wants to write its variables; what it writes is forgotten.
            qemu.args(["-drive", &format!("if=pflash,format=raw,snapshot=on,file={variables}")]);
        }
        Ok(())
    }

    /// QEMU cannot load a PVH kernel under UEFI; Linux has a header of its own for that.
    fn medium(&self) -> Medium {
        match (self.medium, self.firmware) {
            _ if self.kernel().is_linux() => Medium::Direct,
            (Medium::Direct, Firmware::Uefi) => Medium::Usb,
            (medium, _) => medium,
        }
    }

    fn insert(&self, qemu: &mut Command, medium: Medium, image: &Path) -> Result<()> {
        if self.machine == Model::Microvm {
            bail!("a microvm has neither USB nor CD");
        }
        if !self.display {
            // GRUB hands the kernel a screen to draw on.
            qemu.args(["-vga", "std"]);
        }
        let mut drive = OsString::from("if=none,id=medium,format=raw,readonly=on,file=");
        drive.push(image);
        qemu.arg("-drive").arg(drive);
        if medium == Medium::Cd {
            qemu.args(["-device", "ide-cd,drive=medium,bootindex=0"]);
        } else {
            qemu.args(["-device", "qemu-xhci", "-device", "usb-storage,drive=medium,bootindex=0"]);
        }
        Ok(())
    }

    fn disks(&self, qemu: &mut Command, prepared: &Prepared) -> Result<()> {
        let root = prepared.disk.iter().map(|disk| (disk.clone(), ",readonly=on"));
        let mut others = Vec::new();
        for disk in &self.disk {
            let text = disk.to_string_lossy();
            let (file, bus) = text.rsplit_once(',').unwrap_or((&text, "virtio"));
            if bus != "virtio" {
                bail!("--disk {text}: the only bus so far is virtio");
            }
            others.push((PathBuf::from(file), ""));
        }
        for (index, (file, mode)) in root.chain(others).enumerate() {
            let mut drive = OsString::from(format!("if=none,id=disk{index},format={}{mode},file=", format_of(&file)?));
            // A comma in a file's name is doubled.
            drive.push(file.to_string_lossy().replace(',', ",,"));
            qemu.arg("-drive").arg(drive);
            qemu.args(["-device", &format!("{},drive=disk{index}", self.virtio("blk"))]);
        }
        Ok(())
    }

    /// The name of a virtio device on this machine.
    pub fn virtio(&self, kind: &str) -> String {
        match self.machine {
            Model::Microvm => format!("virtio-{kind}-device"),
            Model::Q35 | Model::Pc => format!("virtio-{kind}-pci"),
        }
    }

    fn command_line(&self, prepared: &Prepared, words: &[String]) -> String {
        let mut line = vec!["console=ttyS0".to_owned()];
        line.push(if self.verbose { "loglevel=7".into() } else { "quiet".into() });
        if self.kernel().is_linux() {
            // On a busy host Linux's check of the timer interrupt comes too early, and panics.
            line.extend(["panic=-1".into(), "no_timer_check".into()]);
        }
        line.extend(self.append.iter().cloned());
        // What follows two dashes is for init, which gets it as its arguments too, should there be no /proc.
        line.push("--".into());
        line.extend(words.iter().cloned());
        if prepared.disk.is_some() {
            line.push("init.root=/dev/vda".into());
        }
        line.join(" ")
    }
}

/// The format of a disk image, by its first bytes.
fn format_of(file: &Path) -> Result<&'static str> {
    use std::io::Read;
    let mut magic = [0; 4];
    let mut opened = std::fs::File::open(file).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    let read = opened.read(&mut magic)?;
    Ok(if magic[..read] == *b"QFI\xfb" { "qcow2" } else { "raw" })
}

/// A kernel's log and a program's name in a sentence.
pub fn shown(arguments: &[impl AsRef<OsStr>]) -> String {
    arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ")
}
