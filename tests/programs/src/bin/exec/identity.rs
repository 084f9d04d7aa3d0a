//! Programs that run as somebody else: set-user-ID and set-group-ID, and what takes that away.

use crate::support::{Case, Execution, FOLDER, Outcome, SELF, c_string, ensure, same, value, write};

pub const CASES: &[Case] = &[
    ("a set-user-ID program acts for its owner", a_set_user_id_program),
    ("a set-group-ID program acts for its group", a_set_group_id_program),
    ("a script's bits do not count", a_scripts_bits),
    ("who has given up new privileges gets none", no_new_privileges),
    ("a mount without set-user-ID gives none", a_mount_without),
    ("saved ids are the effective ones", saved_ids),
    ("a program that may not be read is not dumped", an_unreadable_program),
    ("what the old program asked for is not asked of another user's", what_is_reset),
    ("root's program that becomes somebody keeps what it may", capabilities),
];

/// The state of a copy of this program that belongs to somebody, run by user and group 2000.
fn state_of(path: &str, mode: u32, before: impl Fn() + 'static) -> Result<String, String> {
    let own = std::fs::read(SELF).map_err(|error| error.to_string())?;
    let path = write(path, &own, 0o755);
    let name = c_string(path.as_os_str().as_encoded_bytes());
    // SAFETY: a path that ends with NUL.
    unsafe {
        libc::chown(name.as_ptr(), 1000, 1001);
        libc::chmod(name.as_ptr(), mode);
    }
    Execution::of(&path).arguments(["called", "role", "state"]).before(become_somebody).before(before).text()
}

fn become_somebody() {
    // SAFETY: the child gives its rights up.
    unsafe {
        libc::setgroups(0, std::ptr::null());
        libc::setresgid(2000, 2000, 2000);
        libc::setresuid(2000, 2000, 2000);
    }
}

fn a_set_user_id_program() -> Outcome {
    let text = state_of("suid", 0o4755, || ())?;
    same!(value(&text, "ids")?, "[2000, 1000, 1000, 2000, 2000, 2000]");
    same!(value(&text, "secure")?, "1");
    same!(value(&text, "dumpable")?, "0");
    let text = state_of("suid", 0o755, || ())?;
    same!(value(&text, "ids")?, "[2000, 2000, 2000, 2000, 2000, 2000]");
    same!((value(&text, "secure")?, value(&text, "dumpable")?), ("0", "1"));
    Ok(())
}

fn a_set_group_id_program() -> Outcome {
    let text = state_of("sgid", 0o2755, || ())?;
    same!(value(&text, "ids")?, "[2000, 2000, 2000, 2000, 1001, 1001]");
    same!(value(&text, "secure")?, "1");
    // Without the group's x bit it is a mark of something else.
    let text = state_of("sgid", 0o2745, || ())?;
    same!(value(&text, "ids")?, "[2000, 2000, 2000, 2000, 2000, 2000]");
    same!(value(&text, "secure")?, "0");
    let text = state_of("both", 0o6755, || ())?;
    same!(value(&text, "ids")?, "[2000, 1000, 1000, 2000, 1001, 1001]");
    Ok(())
}

fn a_scripts_bits() -> Outcome {
    let script = write("state", format!("#!{FOLDER}/self role\n").as_bytes(), 0o755);
    let name = c_string(script.as_os_str().as_encoded_bytes());
    // SAFETY: a path that ends with NUL.
    unsafe {
        libc::chown(name.as_ptr(), 1000, 1001);
        libc::chmod(name.as_ptr(), 0o6755);
    }
    let text = Execution::of("state").before(become_somebody).text()?;
    same!(value(&text, "ids")?, "[2000, 2000, 2000, 2000, 2000, 2000]");
    same!(value(&text, "secure")?, "0");
    // Its interpreter's do.
    state_of("suid-interpreter", 0o4755, || ())?;
    write("state", format!("#!{FOLDER}/suid-interpreter role\n").as_bytes(), 0o755);
    let text = Execution::of("state").before(become_somebody).text()?;
    same!(value(&text, "ids")?, "[2000, 1000, 1000, 2000, 2000, 2000]");
    Ok(())
}

fn no_new_privileges() -> Outcome {
    let text = state_of("suid", 0o6755, || {
        // SAFETY: no memory is involved.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    })?;
    same!(value(&text, "ids")?, "[2000, 2000, 2000, 2000, 2000, 2000]");
    same!((value(&text, "secure")?, value(&text, "no new privileges")?), ("0", "1"));
    Ok(())
}

fn a_mount_without() -> Outcome {
    let folder = format!("{FOLDER}/nosuid");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let path = c_string(&folder);
    // SAFETY: strings that end with NUL.
    let mounted =
        unsafe { libc::mount(c"none".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), libc::MS_NOSUID, std::ptr::null()) };
    ensure!(mounted == 0);
    let outcome = state_of("nosuid/suid", 0o6755, || ());
    // SAFETY: a string that ends with NUL.
    unsafe { libc::umount(path.as_ptr()) };
    same!(value(&outcome?, "ids")?, "[2000, 2000, 2000, 2000, 2000, 2000]");
    Ok(())
}

fn saved_ids() -> Outcome {
    let text = Execution::role("state")
        .before(|| {
            // SAFETY: the child changes its own ids.
            unsafe {
                libc::setresgid(2000, 2001, 2002);
                libc::setresuid(2000, 2001, 2002);
            }
        })
        .text()?;
    same!(value(&text, "ids")?, "[2000, 2001, 2001, 2000, 2001, 2001]");
    same!(value(&text, "secure")?, "1");
    Ok(())
}

fn an_unreadable_program() -> Outcome {
    let text = state_of("unreadable", 0o711, || ())?;
    same!(value(&text, "dumpable")?, "0");
    same!(value(&text, "secure")?, "0");
    Ok(())
}

fn what_is_reset() -> Outcome {
    let ask = || {
        // SAFETY: no memory is involved.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR1);
            libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
        }
    };
    let text = state_of("suid", 0o4755, ask)?;
    same!((value(&text, "death signal")?, value(&text, "persona")?), ("0", "0x0"));
    let text = state_of("plain", 0o755, ask)?;
    same!((value(&text, "death signal")?, value(&text, "persona")?), ("10", "0x40000"));
    Ok(())
}

fn capabilities() -> Outcome {
    let text = Execution::role("state").text()?;
    ensure!(value(&text, "CapEff")?.trim_start_matches('0').len() > 8);
    let text = state_of("plain", 0o755, || ())?;
    same!(value(&text, "CapEff")?, "0000000000000000");
    // A set-user-ID program of root's may what root may.
    let own = std::fs::read(SELF).map_err(|error| error.to_string())?;
    let path = write("root", &own, 0o4755);
    let text = Execution::of(&path).arguments(["called", "role", "state"]).before(become_somebody).text()?;
    same!(value(&text, "ids")?, "[2000, 0, 0, 2000, 2000, 2000]");
    ensure!(value(&text, "CapEff")?.trim_start_matches('0').len() > 8);
    Ok(())
}
