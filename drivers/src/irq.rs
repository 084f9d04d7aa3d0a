//! Interrupts as something to await.
//!
//! An [`IrqLine`] is the right to wait for one interrupt. The kernel's interrupt entry does no more than acknowledge the
//! controller, mask a level-triggered line, and notify the line's [`Event`]; the driver's task does the rest:
//!
//! ```text
//!   device ──► interrupt entry: mask (level only), Event::notify ──► task: wait() returns, serve the device ──► wait(): unmask
//! ```
//!
//! Next: `block.rs`. Exercise: why must a level-triggered line stay masked until the driver waits again?

use executor::sync::Event;

/// The controller behind a line.
pub trait IrqControl: Sync {
    /// Lets the line interrupt again; called each time a driver begins to wait. Does nothing for message-signalled interrupts.
    fn unmask(&self, line: u32);
    /// Silences the line; called when it is given up.
    fn mask(&self, line: u32);
}

/// The right to wait for one interrupt. Dropping it masks the line.
pub struct IrqLine {
    line: u32,
    event: &'static Event,
    control: &'static dyn IrqControl,
}

impl IrqLine {
    /// Made by the kernel: `event` is what the interrupt entry notifies for `line`.
    pub const fn new(line: u32, event: &'static Event, control: &'static dyn IrqControl) -> IrqLine {
        IrqLine { line, event, control }
    }

    /// Lets the line through, without waiting.
    ///
    /// Lines begin masked, and an edge that comes while its line is masked is gone for good, with the line left high. So the driver
    /// of a device that may have interrupted before arms the line, serves the device once, and only then waits.
    pub fn arm(&mut self) {
        self.control.unmask(self.line);
    }

    /// Waits until the device has interrupted since the last wait. An interrupt that came in between is not lost.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no interrupt: the next wait returns at once.
    pub async fn wait(&mut self) {
        self.control.unmask(self.line);
        self.event.wait().await;
    }
}

impl Drop for IrqLine {
    fn drop(&mut self) {
        self.control.mask(self.line);
    }
}

/// What a device writes, and where, to raise a message-signalled interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsiMessage {
    /// Where the message goes.
    pub address: u64,
    /// What it says.
    pub data: u32,
}

/// Where drivers of message-signalling devices get their interrupts. The kernel implements it over its vectors.
pub trait InterruptSource: Sync {
    /// Sets one interrupt aside: the line to wait on, and the message that raises it; `None` when there are none left.
    fn allocate_message(&self) -> Option<(IrqLine, MsiMessage)>;
}
