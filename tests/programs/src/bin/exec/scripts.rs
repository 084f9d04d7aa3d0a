//! `#!` lines: which make scripts, and what their interpreters are given.

use std::os::fd::AsRawFd;

use crate::support::{Case, End, Execution, FOLDER, Outcome, SHOW, ensure, is_rouse, same, text, value, write};

pub const CASES: &[Case] = &[
    ("every form of a line is read as Linux reads it", every_form_of_a_line),
    ("a path must end within the first 256 bytes", a_path_must_end_in_time),
    ("an argument is cut at 256 bytes", an_argument_is_cut),
    ("a script's environment is the caller's", the_environment_is_unchanged),
    ("a script without arguments is its interpreter's argument", a_script_without_arguments),
    ("scripts interpret scripts, five levels deep", scripts_interpret_scripts),
    ("a script by descriptor is found at /dev/fd", a_script_by_descriptor),
    ("a script that may not be read may be executed", a_script_that_may_not_be_read),
];

/// What becomes of a file with this content: the arguments that its interpreter got, or the error.
fn result(content: &[u8]) -> String {
    let path = write("script", content, 0o755);
    let execution = Execution::of(&path).arguments(["called", "one", "t w o"]);
    match execution.run() {
        (End::Exited(0), output) => value(&text(&output), "arguments").map_or_else(|why| why, str::to_owned),
        (end, _) => end.words(),
    }
}

fn line(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn every_form_of_a_line() -> Outcome {
    let show = SHOW.as_bytes();
    let script = format!("{FOLDER}/script");
    let without = format!("{SHOW}|{script}|one|t w o");
    let with = |argument: &str| format!("{SHOW}|{argument}|{script}|one|t w o");
    let rows: Vec<(Vec<u8>, String)> = vec![
        (line(&[b"#!", show, b"\n"]), without.clone()),
        (line(&[b"#!", show]), without.clone()),
        (line(&[b"#!   ", show]), without.clone()),
        (line(&[b"#!\t", show, b" \t \nmore\n"]), without.clone()),
        (line(&[b"#!", show, b"\t-e\n"]), with("-e")),
        (line(&[b"#!", show, b" -S a  b \n"]), with("-S a  b")),
        (line(&[b"#!", show, b" -S a\tb\t\t\n"]), with("-S a\\tb")),
        (line(&[b"#!", show, b"\0hidden\n"]), without.clone()),
        (line(&[b"#!", show, b" a\0hidden\n"]), with("a")),
        (line(&[b"#!", show, b" \xff\xfe\x80\n"]), with("\\xff\\xfe\\x80")),
        (line(&[b"#!", show, b"\r\n"]), "ENOENT".into()),
        (line(&[b"#!", show, b"\x0b-e\n"]), "ENOENT".into()),
        (b"#!show\n".to_vec(), format!("show|{script}|one|t w o")),
        (b"#!./show x\n".to_vec(), format!("./show|x|{script}|one|t w o")),
        (b"#!sh\n".to_vec(), "ENOENT".into()),
        (b"#!/tmp/exec-test/\xff\n".to_vec(), "ENOENT".into()),
        (b"#!/tmp/exec-test\n".to_vec(), "EACCES".into()),
        (b"#!/tmp/exec-test/self/x\n".to_vec(), "ENOTDIR".into()),
        (b"".to_vec(), "ENOEXEC".into()),
        (b"#".to_vec(), "ENOEXEC".into()),
        (b"#!\n".to_vec(), "ENOEXEC".into()),
        (b"#!  \t\n".to_vec(), "ENOEXEC".into()),
        (b"#!\n/bin/sh\n".to_vec(), "ENOEXEC".into()),
        (line(&[b" #!", show, b"\n"]), "ENOEXEC".into()),
        (line(&[b"\xef\xbb\xbf#!", show, b"\n"]), "ENOEXEC".into()),
        (b"echo hello\n".to_vec(), "ENOEXEC".into()),
    ];
    // Where the file ends behind blanks, Linux makes them part of an argument; and it looks for an interpreter without a name.
    let rouse_only: Vec<(Vec<u8>, String)> = vec![
        (line(&[b"#!", show, b" -S a  b \t"]), with("-S a  b")),
        (line(&[b"#!", show, b" \t "]), without.clone()),
        (b"#!".to_vec(), "ENOEXEC".into()),
    ];
    for (content, wanted) in rows.into_iter().chain(if is_rouse() { rouse_only } else { vec![] }) {
        let found = result(&content);
        if found != wanted {
            return Err(format!("{:?} gives {found}, not {wanted}", text(&content)));
        }
    }
    let name = write([&b"by"[..], b"tes"].concat().escape_ascii().to_string(), b"#!show \xff\n", 0o755);
    let output = Execution::of(&name).text()?;
    ensure!(output.contains("\\xff"));
    Ok(())
}

/// A path of exactly this length to `SHOW`.
fn path_of_length(len: usize) -> Vec<u8> {
    let mut path = FOLDER.as_bytes().to_vec();
    let name = b"/show";
    while path.len() + name.len() + 1 < len {
        path.extend(b"/.");
    }
    if path.len() + name.len() < len {
        path.push(b'/');
    }
    path.extend(name);
    path
}

fn a_path_must_end_in_time() -> Outcome {
    // 256 bytes are looked at: "#!", the path, and the newline.
    for (len, ending, fits) in [
        (200, &b"\n"[..], true),
        (253, b"\n", true),
        (254, b"\n", false),
        (254, b"", false),
        (253, b"", true),
        (255, b"\n", false),
        (300, b"\n", false),
        (252, b" x\n", true),
        (253, b" x\n", true),
        (254, b" x\n", false),
    ] {
        let path = path_of_length(len);
        same!(path.len(), len);
        let found = result(&line(&[b"#!", &path, ending]));
        let is_script = found.contains("/script|one");
        if is_script != fits || !fits && found != "ENOEXEC" {
            return Err(format!("a path of {len} bytes, then {:?}: {found}", text(ending)));
        }
    }
    Ok(())
}

fn an_argument_is_cut() -> Outcome {
    let start = line(&[b"#!", SHOW.as_bytes(), b" "]);
    for len in [200, 256 - start.len() - 1, 256 - start.len(), 256 - start.len() + 1, 400] {
        let found = result(&line(&[&start, &vec![b'a'; len], b"\n"]));
        let argument = found.split('|').nth(1).unwrap_or_default().len();
        // The last of the 256 bytes is never part of it: there is the newline, or a NUL in its place.
        same!(argument, len.min(255 - start.len()));
    }
    Ok(())
}

fn the_environment_is_unchanged() -> Outcome {
    let path = write("script", b"#!show\n", 0o755);
    let output = Execution::of(&path).environment(["B=2", "A=1", "no-name"]).text()?;
    same!(value(&output, "environment")?, "B=2|A=1|no-name");
    Ok(())
}

fn a_script_without_arguments() -> Outcome {
    let path = write("script", b"#!show x\n", 0o755);
    let output = Execution::of(&path).arguments::<&str>([]).text()?;
    same!(value(&output, "arguments")?, "show|x|/tmp/exec-test/script");
    Ok(())
}

fn scripts_interpret_scripts() -> Outcome {
    write("level0", b"#!/tmp/exec-test/show 0\n", 0o755);
    for level in 1..8 {
        write(format!("level{level}"), format!("#!{FOLDER}/level{} {level}\n", level - 1).as_bytes(), 0o755);
    }
    let folder = FOLDER;
    let output = Execution::of(format!("{FOLDER}/level4")).arguments(["called", "end"]).text()?;
    same!(
        value(&output, "arguments")?.to_owned(),
        format!(
            "{folder}/show|0|{folder}/level0|1|{folder}/level1|2|{folder}/level2|3|{folder}/level3|4|{folder}/level4|end"
        )
    );
    for level in 0..8 {
        let end = Execution::of(format!("{FOLDER}/level{level}")).end();
        same!(end, if level < 5 { End::Exited(0) } else { End::Refused(libc::ELOOP) });
    }
    write("loop", format!("#!{FOLDER}/loop\n").as_bytes(), 0o755);
    same!(Execution::of(format!("{FOLDER}/loop")).end(), End::Refused(libc::ELOOP));
    Ok(())
}

fn a_script_by_descriptor() -> Outcome {
    let path = write("script", b"#!/tmp/exec-test/show x\n", 0o755);
    let folder = std::fs::File::open(FOLDER).map_err(|error| error.to_string())?;
    let file = std::fs::File::open(&path).map_err(|error| error.to_string())?;
    let execute = |fd: i32, name: &'static std::ffi::CStr, flags: i32| {
        Execution::of(&path).arguments(["called", "one"]).by(move |arguments, environment| {
            // SAFETY: the lists are ended by null pointers.
            unsafe { libc::syscall(libc::SYS_execveat, fd, name.as_ptr(), arguments, environment, flags) };
        })
    };
    for closes in [false, true] {
        for fd in [file.as_raw_fd(), folder.as_raw_fd()] {
            // SAFETY: own descriptors.
            unsafe { libc::fcntl(fd, libc::F_SETFD, if closes { libc::FD_CLOEXEC } else { 0 }) };
        }
        let by_file = execute(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH);
        let by_folder = execute(folder.as_raw_fd(), c"script", 0);
        if closes {
            same!(by_file.end(), End::Refused(libc::ENOENT));
            same!(by_folder.end(), End::Refused(libc::ENOENT));
        } else {
            let number = file.as_raw_fd();
            same!(value(&by_file.text()?, "arguments")?.to_owned(), format!("{SHOW}|x|/dev/fd/{number}|one"));
            let number = folder.as_raw_fd();
            same!(value(&by_folder.text()?, "arguments")?.to_owned(), format!("{SHOW}|x|/dev/fd/{number}/script|one"));
        }
        // An absolute path does not need the descriptor.
        let absolute = execute(folder.as_raw_fd(), c"/tmp/exec-test/script", 0);
        same!(value(&absolute.text()?, "arguments")?, "/tmp/exec-test/show|x|/tmp/exec-test/script|one");
    }
    let at_here = execute(libc::AT_FDCWD, c"script", 0);
    same!(value(&at_here.text()?, "arguments")?, "/tmp/exec-test/show|x|script|one");
    same!(execute(-1, c"script", 0).end(), End::Refused(libc::EBADF));
    same!(execute(file.as_raw_fd(), c"script", 0).end(), End::Refused(libc::ENOTDIR));
    same!(execute(libc::AT_FDCWD, c"", 0).end(), End::Refused(libc::ENOENT));
    same!(execute(libc::AT_FDCWD, c"show", libc::AT_SYMLINK_NOFOLLOW).end(), End::Refused(libc::ELOOP));
    same!(execute(libc::AT_FDCWD, c"script", 1).end(), End::Refused(libc::EINVAL));
    Ok(())
}

fn a_script_that_may_not_be_read() -> Outcome {
    let path = write("script", b"#!/tmp/exec-test/show\n", 0o711);
    let output = Execution::of(&path).before(|| {
        // SAFETY: the child gives its rights up.
        unsafe { (libc::setgid(1000), libc::setuid(1000)) };
    });
    ensure!(output.text()?.contains("script"));
    Ok(())
}
