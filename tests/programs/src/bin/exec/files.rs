//! The files that the cases of `faults.rs` execute, made in a folder: on the guest, or on the host for a disk's image.

use std::path::Path;

use crate::elf::{BASE, Code, Elf, PT_TLS, Part, R};

/// Makes `program` (this program), `interpreted` and its `interpreter` (which will be found in `folder_there`), `script`, `storage`, `tiny`.
pub fn make(folder: &Path, folder_there: &str) {
    let own = std::fs::read("/proc/self/exe").expect("this program");
    let interpreter = format!("{folder_there}/interpreter");
    let storage = Elf::fixed(Code::Exit).with(|elf| {
        let address = BASE + 0x2000;
        elf.parts.push(Part {
            kind: PT_TLS,
            flags: R,
            offset: 0x2000,
            address,
            file_len: 16,
            memory_len: 64,
            align: 64,
        });
        elf.content.push((0x2000, vec![1; 16]));
    });
    for (name, content) in [
        ("program", own),
        ("interpreted", Elf::relocatable(Code::Exit).interpreted_by(interpreter.as_bytes()).bytes()),
        ("interpreter", Elf::interpreter(Code::Exit).bytes()),
        ("script", format!("#!{interpreter}\n").into_bytes()),
        ("storage", storage.bytes()),
        ("tiny", Elf::fixed(Code::Exit).bytes()),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, content).expect("a file");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    }
}
