//! What the host tool and init say to each other over the ports of a virtio console.
//!
//! Four ports, found by their number (`/dev/vport0p<number>`), because names want a sysfs that a young kernel may lack:
//!
//! ```text
//! port             direction        content
//! 1 standard input host -> guest    frames: u32 length, that many bytes; a length of 0 is end-of-file
//! 2 standard output guest -> host   the bytes, as they are
//! 3 standard error guest -> host    the bytes, as they are
//! 4 control        both             messages: u8 kind, u32 length, payload
//! ```
//!
//! ```text
//! host                                   guest
//!                          <- Hello      init is up
//! Run ->                                 starts the program
//! frames, end-of-file ->
//! Close(stream) ->                       the reader on the host has gone: the program's pipe is closed
//!                          <- Status     how it ended, and how many bytes went to each port before
//! (the host reads the ports up to these counts; then the next Run, or)
//! Quit ->                  <- Bye        disks are synced; the host may pull the plug
//! ```
//!
//! Ports are independent streams, so a status may overtake output: the counts in it say when output is complete. Standard
//! input always ends with an end-of-file frame, even when the program ended first; only then does the next `Run` begin.
//! Back-pressure is that of the ports: a reader that stops reading stops the writer.
//!
//! next: `src/bin/init/channels.rs` (the guest's end) and `xtask/src/guest.rs` (the host's).

/// The port that carries standard input.
pub const STDIN_PORT: u32 = 1;
/// The port that carries standard output.
pub const STDOUT_PORT: u32 = 2;
/// The port that carries standard error.
pub const STDERR_PORT: u32 = 3;
/// The port that carries messages.
pub const CONTROL_PORT: u32 = 4;

/// A message longer than this is a mistake, and is refused.
const LONGEST_MESSAGE: usize = 16 << 20;

/// What the guest is asked to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments, as bytes; the program is searched for in `PATH`.
    pub arguments: Vec<Vec<u8>>,
    /// `NAME=value` pairs that are added to init's own environment.
    pub environment: Vec<Vec<u8>>,
    /// The working directory; empty for `/`.
    pub directory: Vec<u8>,
    /// Run on the console, in a session of its own, instead of on pipes.
    pub on_terminal: bool,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exited(u8),
    /// A signal of this number ended it.
    Killed(u8),
    /// It could not be started; the number is the errno.
    NotStarted(u32),
}

impl End {
    /// The status as a shell tells it: 128 + n for a signal, 127 for a program that is not there, 126 for one that cannot run.
    pub fn shell_status(self) -> u8 {
        const ENOENT: u32 = 2;
        match self {
            End::Exited(status) => status,
            End::Killed(signal) => 128u8.wrapping_add(signal),
            End::NotStarted(ENOENT) => 127,
            End::NotStarted(_) => 126,
        }
    }
}

/// One message on the control port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Guest: init is up and reads its ports.
    Hello,
    /// Host: start this program.
    Run(Command),
    /// Host: nobody reads this port any more.
    Close(u32),
    /// Host: send this signal to the program.
    Signal(u8),
    /// Host: the terminal now has so many rows and columns.
    WindowSize {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
    /// Guest: the program has ended, after so many bytes on ports 2 and 3.
    Status {
        /// How it ended.
        end: End,
        /// Bytes written to the standard output port since `Run`.
        stdout: u64,
        /// Bytes written to the standard error port since `Run`.
        stderr: u64,
    },
    /// Host: sync and power off.
    Quit,
    /// Guest: synced.
    Bye,
}

impl Message {
    /// The message as it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        let kind = match self {
            Message::Hello => b'H',
            Message::Run(command) => {
                payload.push(command.on_terminal.into());
                put_bytes(&mut payload, &command.directory);
                put_list(&mut payload, &command.arguments);
                put_list(&mut payload, &command.environment);
                b'R'
            }
            Message::Close(port) => {
                payload.extend(port.to_le_bytes());
                b'C'
            }
            Message::Signal(number) => {
                payload.push(*number);
                b'K'
            }
            Message::WindowSize { rows, columns } => {
                payload.extend(rows.to_le_bytes());
                payload.extend(columns.to_le_bytes());
                b'W'
            }
            Message::Status { end, stdout, stderr } => {
                let (how, number) = match *end {
                    End::Exited(status) => (0, status.into()),
                    End::Killed(signal) => (1, signal.into()),
                    End::NotStarted(errno) => (2u8, errno),
                };
                payload.push(how);
                payload.extend(number.to_le_bytes());
                payload.extend(stdout.to_le_bytes());
                payload.extend(stderr.to_le_bytes());
                b'S'
            }
            Message::Quit => b'Q',
            Message::Bye => b'B',
        };
        let mut wire = vec![kind];
        put_bytes(&mut wire, &payload);
        wire
    }

    fn decode(kind: u8, payload: &[u8]) -> Option<Message> {
        let mut fields = Fields(payload);
        let message = match kind {
            b'H' => Message::Hello,
            b'R' => {
                let on_terminal = fields.number::<1>()?[0] != 0;
                let directory = fields.bytes()?;
                Message::Run(Command { on_terminal, directory, arguments: fields.list()?, environment: fields.list()? })
            }
            b'C' => Message::Close(u32::from_le_bytes(fields.number()?)),
            b'K' => Message::Signal(fields.number::<1>()?[0]),
            b'W' => {
                let rows = u16::from_le_bytes(fields.number()?);
                Message::WindowSize { rows, columns: u16::from_le_bytes(fields.number()?) }
            }
            b'S' => {
                let how = fields.number::<1>()?[0];
                let number = u32::from_le_bytes(fields.number()?);
                let end = match how {
                    0 => End::Exited(number.try_into().ok()?),
                    1 => End::Killed(number.try_into().ok()?),
                    2 => End::NotStarted(number),
                    _ => return None,
                };
                let stdout = u64::from_le_bytes(fields.number()?);
                Message::Status { end, stdout, stderr: u64::from_le_bytes(fields.number()?) }
            }
            b'Q' => Message::Quit,
            b'B' => Message::Bye,
            _ => return None,
        };
        fields.0.is_empty().then_some(message)
    }
}

/// Puts messages together from the bytes of a port, which arrive in any pieces.
#[derive(Default)]
pub struct Decoder {
    received: Vec<u8>,
}

/// The peer did not keep to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Decoder {
    /// Takes in what was read from the port.
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next whole message, if all of it is here.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes are no message; the stream cannot be used any further.
    pub fn next_message(&mut self) -> Result<Option<Message>, Malformed> {
        let Some((&kind, rest)) = self.received.split_first() else { return Ok(None) };
        let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > LONGEST_MESSAGE {
            return Err(Malformed);
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let message = Message::decode(kind, payload).ok_or(Malformed)?;
        self.received.drain(..5 + length);
        Ok(Some(message))
    }
}

fn put_bytes(wire: &mut Vec<u8>, bytes: &[u8]) {
    wire.extend((bytes.len() as u32).to_le_bytes());
    wire.extend_from_slice(bytes);
}

fn put_list(wire: &mut Vec<u8>, list: &[Vec<u8>]) {
    wire.extend((list.len() as u32).to_le_bytes());
    for item in list {
        put_bytes(wire, item);
    }
}

/// The part of a payload that is still to be read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*number)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_le_bytes(self.number()?) as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn list(&mut self) -> Option<Vec<Vec<u8>>> {
        let length = u32::from_le_bytes(self.number()?);
        (0..length).map(|_| self.bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kinds() -> Vec<Message> {
        vec![
            Message::Hello,
            Message::Run(Command {
                arguments: vec![b"ls".to_vec(), vec![0xff, 0]],
                environment: vec![b"A=b".to_vec()],
                directory: b"/tmp".to_vec(),
                on_terminal: true,
            }),
            Message::Close(STDOUT_PORT),
            Message::Signal(15),
            Message::WindowSize { rows: 24, columns: 80 },
            Message::Status { end: End::Killed(9), stdout: 1 << 40, stderr: 7 },
            Message::Status { end: End::NotStarted(13), stdout: 0, stderr: 0 },
            Message::Quit,
            Message::Bye,
        ]
    }

    #[test]
    fn every_message_survives_the_wire_in_any_pieces() {
        let wire: Vec<u8> = all_kinds().iter().flat_map(Message::encode).collect();
        for piece in [1, 3, 64, wire.len()] {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for bytes in wire.chunks(piece) {
                decoder.push(bytes);
                while let Some(message) = decoder.next_message().expect("the bytes are well formed") {
                    seen.push(message);
                }
            }
            assert_eq!(seen, all_kinds());
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        for wire in [&b"?\0\0\0\0"[..], b"H\x01\0\0\0x", b"H\xff\xff\xff\xff", b"C\x01\0\0\0\0"] {
            let mut decoder = Decoder::default();
            decoder.push(wire);
            assert_eq!(decoder.next_message(), Err(Malformed), "{wire:?}");
        }
    }

    #[test]
    fn a_death_by_signal_is_told_as_shells_tell_it() {
        assert_eq!(End::Killed(9).shell_status(), 137);
        assert_eq!(End::Exited(3).shell_status(), 3);
        assert_eq!(End::NotStarted(2).shell_status(), 127);
        assert_eq!(End::NotStarted(13).shell_status(), 126);
    }
}
