//! Draws a test picture into a PNG file: for eyes.
//!
//! `cargo run -p terminal --example screenshot -- picture.png [FILE WITH TERMINAL OUTPUT]`

use std::error::Error;

use drivers::display::{FrameBuffer, PixelFormat};
use drivers::hw::Mmio;
use terminal::Terminal;

const WIDTH: usize = 1024;
const HEIGHT: usize = 768;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next().ok_or("name a PNG file to write")?;
    let text = match arguments.next() {
        Some(file) => std::fs::read(file)?,
        None => test_picture().into_bytes(),
    };
    let format = PixelFormat { bytes: 4, red: (16, 8), green: (8, 8), blue: (0, 8) };
    let frame = FrameBuffer {
        pixels: Mmio::leaked(WIDTH * HEIGHT * 4),
        width: WIDTH,
        height: HEIGHT,
        pitch: WIDTH * 4,
        format,
    };
    let mut terminal = Terminal::new(frame)?;
    terminal.write(&text, &mut |_| ());
    terminal.flush();

    let mut rows = Vec::new();
    for y in 0..HEIGHT {
        let mut line = vec![0; WIDTH * 4];
        frame.pixels.read_bytes(y * frame.pitch, &mut line);
        // A PNG row begins with its filter: none.
        rows.push(0);
        rows.extend(line.chunks(4).flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]));
    }
    std::fs::write(&target, png(&rows))?;
    println!("wrote {target}");
    Ok(())
}

fn test_picture() -> String {
    let mut text = String::from("Rouse console: The quick brown fox jumps over the lazy dog. 0123456789\r\n");
    text += "Àéîõü ßøåŁž … “quotes” → ← ✓ ✗ 漢字 \u{fffd}\r\n";
    text += "┌────────┬───────┐ ░▒▓█ ▁▂▃▄▅▆▇█ ▌▐▀▄\r\n│ \x1b[1mbold\x1b[0m   │ \x1b[4munder\x1b[0m │\r\n├────────┼───────┤\r\n";
    text += "│ \x1b[2mdim\x1b[0m    │ \x1b[7mrev\x1b[0m   │\r\n└────────┴───────┘\r\n\x1b)0\x0elqqqqk\x0f\r\n";
    for base in [40, 100] {
        for colour in 0..8 {
            text += &format!("\x1b[{}m   \x1b[0m \x1b[{}mtext\x1b[0m ", base + colour, base - 10 + colour);
        }
        text += "\r\n";
    }
    for number in 16..256 {
        text += &format!("\x1b[48;5;{number}m  ");
        if (number - 16) % 36 == 35 {
            text += "\x1b[0m\r\n";
        }
    }
    text += "\x1b[0m\r\nroot@rouse:~# ls -l\r\n";
    text
}

/// A PNG of WIDTH × HEIGHT pixels of three bytes, not compressed.
fn png(rows: &[u8]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend((WIDTH as u32).to_be_bytes());
    header.extend((HEIGHT as u32).to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    chunk(&mut file, b"IHDR", &header);
    let mut stream = vec![0x78, 0x01];
    let blocks: Vec<&[u8]> = rows.chunks(0xffff).collect();
    for (index, block) in blocks.iter().enumerate() {
        let len = block.len() as u16;
        stream.push(u8::from(index + 1 == blocks.len()));
        stream.extend(len.to_le_bytes());
        stream.extend((!len).to_le_bytes());
        stream.extend_from_slice(block);
    }
    let (low, high) = rows.iter().fold((1u32, 0u32), |(low, high), byte| {
        ((low + u32::from(*byte)) % 65521, (high + low + u32::from(*byte)) % 65521)
    });
    stream.extend((high << 16 | low).to_be_bytes());
    chunk(&mut file, b"IDAT", &stream);
    chunk(&mut file, b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend(name);
    file.extend(data);
    let crc = !file[start..].iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    file.extend(crc.to_be_bytes());
}
