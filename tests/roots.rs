//! A person's own root: a folder becomes a disk, and a program that is added brings its libraries along.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use xtask::guest::Guest;
use xtask::machine::Options;
use xtask::testing::under_test;
use xtask::{packages, paths};

#[test]
fn a_folder_serves_as_root_with_a_dynamic_program_added() {
    let folder = paths::made("roots").expect("target is ours").join("a-folder");
    fs::create_dir_all(folder.join("bin")).expect("target is ours");
    let busybox = packages::unpacked("busybox-static").expect("apt");
    let busybox = ["bin/busybox", "usr/bin/busybox"].iter().map(|path| busybox.join(path)).find(|path| path.exists());
    fs::copy(busybox.expect("the package has it"), folder.join("bin/sh")).expect("target is ours");
    fs::set_permissions(folder.join("bin/sh"), fs::Permissions::from_mode(0o755)).expect("ours");
    fs::write(folder.join("note"), "from the host\n").expect("target is ours");
    let root = folder.to_string_lossy().into_owned();
    // Linked dynamically on every Debian, and essential there.
    let options = under_test(Options { root, add: vec!["/usr/bin/tac".into()], ..Options::default() });
    let mut guest = Guest::start(&options).unwrap_or_else(|error| panic!("{error:#}"));
    let output = guest.shell("cat /note; echo changed > /note; cat /note; printf '1\\n2\\n' | /usr/bin/tac");
    assert_eq!(output.expect("a guest").text(), "from the host\nchanged\n2\n1\n");
    assert_eq!(
        fs::read_to_string(folder.join("note")).expect("ours"),
        "from the host\n",
        "the host's is never written"
    );
}
