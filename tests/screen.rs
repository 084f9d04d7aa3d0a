//! A person at a PC: started from a CD, with the screen and the keyboard as the console.
//!
//! QEMU's monitor presses the keys and takes a picture of the screen; what the shell is told to say on the serial line shows that it
//! has heard.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use xtask::machine::{Medium, Options};
use xtask::testing::under_test;

/// Slow machines compile GRUB's menu, the kernel and the shell's first pages one instruction at a time.
const PATIENCE: Duration = Duration::from_secs(240);

struct Screen {
    qemu: Child,
}

impl Screen {
    fn command(&mut self, line: &str) {
        let monitor = self.qemu.stdin.as_mut().expect("the monitor is there");
        writeln!(monitor, "{line}").expect("QEMU runs");
    }

    /// Types on the keyboard, after a ^U for what an earlier attempt has left.
    fn type_line(&mut self, line: &str) {
        self.command("sendkey ctrl-u");
        for character in line.chars() {
            self.command(&format!("sendkey {} 20", key(character)));
            std::thread::sleep(Duration::from_millis(60));
        }
        self.command("sendkey ret 20");
    }

    /// How many points of the screen have which of a few colours.
    fn points(&mut self, folder: &Path, color: [u8; 3]) -> usize {
        let file = folder.join("screen.ppm");
        let _ = std::fs::remove_file(&file);
        self.command(&format!("screendump {}", file.display()));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let picture = std::fs::read(&file).unwrap_or_default();
            // P6, width and height, 255: three lines, and then three bytes a point.
            let mut lines = picture.splitn(4, |byte| *byte == b'\n');
            let size: Vec<usize> = lines.nth(1).map_or(vec![], |line| {
                String::from_utf8_lossy(line).split(' ').filter_map(|number| number.parse().ok()).collect()
            });
            let points = lines.nth(1).unwrap_or_default();
            if size.len() == 2 && points.len() == size[0] * size[1] * 3 {
                return points.chunks(3).filter(|point| **point == color).count();
            }
            assert!(Instant::now() < deadline, "no picture of the screen");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// The name of the key, or keys, that give a character.
fn key(character: char) -> String {
    match character {
        ' ' => "spc".into(),
        '/' => "slash".into(),
        '>' => "shift-dot".into(),
        '-' => "minus".into(),
        ';' => "semicolon".into(),
        '\'' => "apostrophe".into(),
        '\\' => "backslash".into(),
        '[' => "bracket_left".into(),
        upper if upper.is_ascii_uppercase() => format!("shift-{}", upper.to_ascii_lowercase()),
        '%' => "shift-5".into(),
        other => other.to_string(),
    }
}

#[test]
fn what_is_typed_reaches_the_shell_and_what_it_says_the_screen() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screen");
    std::fs::create_dir_all(&folder).expect("a folder");
    let serial = folder.join("serial.txt");
    std::fs::write(&serial, "").expect("a file");
    let options = Options { medium: Medium::Cd, append: vec!["console=tty0".into()], ..Options::default() };
    let mut command = under_test(options).command(&["init.mode=shell".into()]).expect("a machine");
    command.arg("-serial").arg(format!("file:{}", serial.display())).args(["-monitor", "stdio"]);
    let qemu = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("QEMU");
    let mut screen = Screen { qemu };

    let started = Instant::now();
    while !std::fs::read_to_string(&serial).expect("QEMU's file").contains("heard") {
        assert!(started.elapsed() < PATIENCE, "the shell does not hear the keyboard");
        std::thread::sleep(Duration::from_secs(2));
        screen.type_line("echo heard > /dev/ttyS0");
    }
    const RED: [u8; 3] = [170, 0, 0];
    assert_eq!(screen.points(&folder, RED), 0, "nothing is red yet");
    // Forty blanks on red are forty cells of at least 7 by 14 points.
    screen.type_line("printf '\\033[41m%40s\\033[0m' x");
    let enough = 39 * 7 * 14;
    while screen.points(&folder, RED) < enough {
        assert!(started.elapsed() < PATIENCE, "the screen does not show the colour");
        std::thread::sleep(Duration::from_millis(500));
    }
}
