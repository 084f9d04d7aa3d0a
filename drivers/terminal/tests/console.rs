//! The terminal as a program sees it: bytes in, cells and pixels out.

use drivers::display::{FrameBuffer, PixelFormat};
use drivers::hw::Mmio;
use terminal::{PanicScreen, Terminal};

const RGB32: PixelFormat = PixelFormat { bytes: 4, red: (16, 8), green: (8, 8), blue: (0, 8) };
const RGB24: PixelFormat = PixelFormat { bytes: 3, red: (16, 8), green: (8, 8), blue: (0, 8) };
const RGB565: PixelFormat = PixelFormat { bytes: 2, red: (11, 5), green: (5, 6), blue: (0, 5) };

/// A screen in memory.
fn screen(width: usize, height: usize, format: PixelFormat) -> FrameBuffer {
    let pitch = width * format.bytes + 8;
    FrameBuffer { pixels: Mmio::leaked(pitch * height), width, height, pitch, format }
}

struct Console {
    terminal: Terminal,
    frame: FrameBuffer,
    replies: Vec<u8>,
}

impl Console {
    /// 20 columns, 6 rows.
    fn new() -> Console {
        let frame = screen(20 * 7 + 3, 6 * 16 + 5, RGB32);
        let terminal = Terminal::new(frame).expect("a sound frame buffer");
        assert_eq!((terminal.columns(), terminal.rows()), (20, 6));
        Console { terminal, frame, replies: Vec::new() }
    }

    fn write(&mut self, text: &str) -> &mut Console {
        self.terminal.write(text.as_bytes(), &mut |reply| self.replies.extend_from_slice(reply));
        self.terminal.flush();
        self
    }

    fn rows(&self) -> Vec<String> {
        (0..self.terminal.rows()).map(|row| self.terminal.grid().text(row)).collect()
    }

    fn cursor(&self) -> (usize, usize) {
        self.terminal.grid().cursor()
    }

    fn pixels(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.frame.pitch * self.frame.height];
        self.frame.pixels.read_bytes(0, &mut bytes);
        bytes
    }
}

fn shown(text: &str) -> Vec<String> {
    Console::new().write(text).rows()
}

#[test]
fn lines_appear_below_each_other_and_scroll() {
    assert_eq!(shown("one\r\ntwo\r\n"), ["one", "two", "", "", "", ""]);
    assert_eq!(shown("1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7"), ["2", "3", "4", "5", "6", "7"]);
}

#[test]
fn a_full_line_wraps_only_when_the_next_character_comes() {
    let mut console = Console::new();
    console.write("12345678901234567890");
    assert_eq!(console.cursor(), (0, 19));
    console.write("\r\nx");
    assert_eq!(console.rows()[..3], ["12345678901234567890", "x", ""]);
    assert_eq!(shown("12345678901234567890ab")[..2], ["12345678901234567890", "ab"]);
    assert_eq!(shown("\x1b[?7l12345678901234567890ab")[..2], ["1234567890123456789b", ""]);
}

#[test]
fn the_cursor_goes_where_it_is_sent_and_never_off_the_screen() {
    let mut console = Console::new();
    for (text, place) in [
        ("\x1b[3;5H", (2, 4)),
        ("\x1b[A", (1, 4)),
        ("\x1b[2B", (3, 4)),
        ("\x1b[3C", (3, 7)),
        ("\x1b[2D", (3, 5)),
        ("\x1b[99A", (0, 5)),
        ("\x1b[999;999f", (5, 19)),
        ("\x1b[65535C\x1b[65535B", (5, 19)),
        ("\x1b[G", (5, 0)),
        ("\x1b[2d", (1, 0)),
        ("\t", (1, 8)),
        ("\x08", (1, 7)),
        ("\x1b[0;0H", (0, 0)),
        ("\x1b[2E", (2, 0)),
        ("\x1b[F", (1, 0)),
    ] {
        console.write(text);
        assert_eq!(console.cursor(), place, "after {text:?}");
    }
}

#[test]
fn parts_of_lines_and_of_the_screen_are_erased() {
    assert_eq!(shown("abcdef\x1b[3G\x1b[K")[0], "ab");
    assert_eq!(shown("abcdef\x1b[3G\x1b[1K")[0], "   def");
    assert_eq!(shown("abcdef\x1b[2K")[0], "");
    assert_eq!(shown("a\r\nb\r\nc\x1b[2;1H\x1b[J")[..3], ["a", "", ""]);
    assert_eq!(shown("a\r\nb\r\nc\x1b[2;1H\x1b[1J")[..3], ["", "", "c"]);
    assert_eq!(shown("a\r\nb\x1b[2J")[..2], ["", ""]);
    assert_eq!(shown("abcdef\x1b[2G\x1b[2X")[0], "a  def");
}

#[test]
fn characters_and_lines_are_inserted_and_deleted() {
    assert_eq!(shown("abcdef\x1b[2G\x1b[2@")[0], "a  bcdef");
    assert_eq!(shown("abcdef\x1b[2G\x1b[2P")[0], "adef");
    assert_eq!(shown("abc\x1b[G\x1b[4hX\x1b[4l")[0], "Xabc");
    assert_eq!(shown("a\r\nb\r\nc\x1b[2;1H\x1b[L")[..4], ["a", "", "b", "c"]);
    assert_eq!(shown("a\r\nb\r\nc\x1b[1;1H\x1b[2M")[..2], ["c", ""]);
    assert_eq!(shown("abc\x1b[1G\x1b[65535P\x1b[65535@\x1b[65535L\x1b[65535M")[0], "");
}

#[test]
fn only_the_scrolling_region_scrolls() {
    let text = "top\r\na\r\nb\r\nc\r\nd\r\nend\x1b[2;5r\x1b[5;1H\nnew";
    assert_eq!(shown(text), ["top", "b", "c", "d", "new", "end"]);
    let text = "top\r\na\r\nb\r\nc\r\nd\r\nend\x1b[2;5r\x1b[2;1H\x1bMnew";
    assert_eq!(shown(text), ["top", "new", "a", "b", "c", "end"]);
    // Origin mode: rows count from the region's first, and the cursor stays inside.
    let mut console = Console::new();
    console.write("\x1b[2;4r\x1b[?6h\x1b[99;1H\x1b[6n");
    assert_eq!((console.cursor(), &console.replies[..]), ((3, 0), &b"\x1b[3;1R"[..]));
}

#[test]
fn cursor_and_attributes_are_saved_and_restored() {
    let mut console = Console::new();
    console.write("\x1b[2;3H\x1b[31m\x1b7\x1b[0m\x1b[5;5Hx\x1b8y");
    let cell = console.terminal.grid().cell(1, 2);
    assert_eq!((cell.character, cell.look.foreground), ('y', 1));
}

#[test]
fn colours_and_attributes_are_shown() {
    let look = |text: &str| Console::new().write(text).terminal.grid().cell(0, 0).look;
    assert_eq!((look("\x1b[32mx").foreground, look("\x1b[1;32mx").foreground), (2, 10));
    assert_eq!((look("\x1b[7mx").foreground, look("\x1b[7mx").background), (0, 7));
    assert_eq!(look("\x1b[38;5;200mx").foreground, 200);
    assert_eq!(look("\x1b[48;2;255;0;0mx").background, 196);
    assert_eq!(look("\x1b[38:5:17mx").foreground, 17);
    assert_eq!(look("\x1b[97;44mx"), terminal::cell::Look { foreground: 15, background: 4, is_underlined: false });
    assert!(look("\x1b[4mx").is_underlined && !look("\x1b[4;24mx").is_underlined);
}

#[test]
fn the_terminal_answers_who_it_is_and_where_the_cursor_is() {
    let mut console = Console::new();
    console.write("\x1b[3;4H\x1b[6n\x1b[5n\x1b[c\x1bZ");
    assert_eq!(console.replies, b"\x1b[3;4R\x1b[0n\x1b[?6c\x1b[?6c");
}

#[test]
fn line_drawing_characters_come_from_the_other_set() {
    assert_eq!(shown("\x1b)0\x0elqqk\x0fq")[0], "┌──┐q");
    assert_eq!(shown("\x1b(0x\x1b(Bx")[0], "│x");
}

#[test]
fn text_is_utf8_and_wide_characters_take_two_cells() {
    assert_eq!(shown("äöü→")[0], "äöü→");
    let mut console = Console::new();
    console.write("漢e\u{301}");
    assert_eq!(console.cursor(), (0, 3));
    assert_eq!(console.rows()[0], "漢 e");
    assert_eq!(shown("a\u{fffd}b")[0], "a\u{fffd}b");
}

#[test]
fn a_reset_with_the_palette_sequence_swallows_nothing() {
    assert_eq!(shown("x\x1bc\x1b]Rprompt")[0], "prompt");
    assert_eq!(shown("\x1b]P1ff0000red\x1b]0;title\x07!")[0], "red!");
}

#[test]
fn what_is_on_the_screen_is_what_a_fresh_drawing_would_show() {
    // Whatever was drawn in between, the pixels are those of the cells.
    let mut seed = 12345u64;
    let mut random = move |limit: u64| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) % limit
    };
    let mut console = Console::new();
    for _ in 0..400 {
        let piece = match random(12) {
            0 => format!("\x1b[{};{}H", random(9), random(30)),
            1 => format!("\x1b[{}{}", random(5), ["L", "M", "P", "@", "X", "S", "T"][random(7) as usize]),
            2 => format!("\x1b[{}m", random(110)),
            3 => format!("\x1b[{}{}", random(3), ["J", "K"][random(2) as usize]),
            4 => format!("\x1b[{};{}r", random(5), random(8)),
            5 => "\r\n".into(),
            6 => format!("\x1b[?{}{}", [5, 6, 7, 25][random(4) as usize], ["h", "l"][random(2) as usize]),
            7 => "\x1bM".into(),
            _ => "some text é─█".chars().take(random(13) as usize).collect(),
        };
        console.write(&piece);
    }
    let before = console.pixels();
    // A change of palette draws everything anew; the same colours again, so the same pixels.
    console.write("\x1b]R");
    assert!(before == console.pixels());
    assert!(before.iter().any(|byte| *byte != 0));
}

#[test]
fn any_bytes_at_all_are_survived() {
    let mut seed = 99u64;
    let mut console = Console::new();
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..100)
            .map(|_| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let byte = (seed >> 40) as u8;
                if byte < 60 { b"\x1b[;?0123456789HJKLMPXr"[usize::from(byte) % 21] } else { byte }
            })
            .collect();
        console.terminal.write(&bytes, &mut |_| ());
        console.terminal.flush();
    }
}

#[test]
fn every_pixel_format_shows_the_same_picture() {
    for format in [RGB32, RGB24, RGB565] {
        let frame = screen(70, 32, format);
        let mut terminal = Terminal::new(frame).expect("a sound frame buffer");
        terminal.write("\x1b[?25l\x1b[31m█".as_bytes(), &mut |_| ());
        terminal.flush();
        let mut pixel = [0; 4];
        frame.pixels.read_bytes(0, &mut pixel[..format.bytes]);
        let expected: u32 = if format.bytes == 2 { (170 >> 3) << 11 } else { 170 << 16 };
        assert_eq!(u32::from_le_bytes(pixel), expected);
        let mut beyond = [1; 2];
        frame.pixels.read_bytes(frame.width * format.bytes, &mut beyond);
        assert_eq!(beyond, [0; 2], "nothing is drawn behind the end of a line");
    }
}

#[test]
fn a_frame_buffer_that_cannot_be_is_refused() {
    let frame = screen(70, 32, RGB32);
    assert!(Terminal::new(FrameBuffer { width: 5, ..frame }).is_err());
    assert!(Terminal::new(FrameBuffer { height: 100_000, ..frame }).is_err());
    assert!(Terminal::new(FrameBuffer { width: 10_000, ..frame }).is_err());
    assert!(PanicScreen::new(FrameBuffer { height: 3, ..frame }).is_err());
    let odd = PixelFormat { bytes: 7, ..RGB32 };
    assert!(PanicScreen::new(FrameBuffer { format: odd, ..frame }).is_err());
}

#[test]
fn the_panic_screen_writes_over_everything_and_starts_again_at_the_top() {
    let frame = screen(70, 32, RGB32);
    let panic = PanicScreen::new(frame).expect("a sound frame buffer");
    let lit = || {
        let mut bytes = vec![0; frame.pitch * 16];
        frame.pixels.read_bytes(0, &mut bytes);
        bytes.iter().filter(|byte| **byte != 0).count()
    };
    panic.write("kernel");
    assert!(lit() > 0);
    // Two lines fit; the third is written over the first, which is cleared.
    panic.write("\nsecond\n.\n");
    let one_dot = lit();
    assert!(one_dot > 0 && one_dot < 100);
    panic.write(&"a very long line that does not fit ".repeat(20));
}
