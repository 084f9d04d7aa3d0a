//! One source, two runs: with `--cfg loom` a model's every interleaving is explored; without, it runs on real threads a
//! number of times, so that it always compiles, and plain `cargo test` tries it too.
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test -p executor --release --target-dir target/loom --test 'loom_*'
//! ```
#![allow(dead_code, unused_imports, reason = "each model uses some of it")]

#[cfg(loom)]
pub use loom::{
    future::block_on,
    sync::{
        Arc, Mutex, Notify,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread, thread_local,
};
#[cfg(not(loom))]
pub use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread, thread_local,
};

#[cfg(not(loom))]
pub use plain::{Notify, block_on};

/// Runs `body` under every interleaving, or many times.
pub fn model(body: impl Fn() + Sync + Send + 'static) {
    explore(None, body);
}

/// Runs a `body` of three threads, or of many steps, under every interleaving with at most two preemptions, or many times. (Nearly all
/// mistakes of this kind need two at most; all interleavings would take hours.)
pub fn model_in_bounds(body: impl Fn() + Sync + Send + 'static) {
    explore(Some(2), body);
}

fn explore(preemptions: Option<usize>, body: impl Fn() + Sync + Send + 'static) {
    #[cfg(loom)]
    {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = preemptions;
        builder.max_branches = 20_000;
        builder.check(body);
    }
    #[cfg(not(loom))]
    for _ in 0..if cfg!(miri) { 5 } else { 1_000 } {
        let _ = preemptions;
        body();
    }
}

#[cfg(not(loom))]
mod plain {
    use std::{
        future::Future,
        pin::pin,
        sync::{Arc, Condvar, Mutex},
        task::{Context, Poll, Wake, Waker},
        thread::{self, Thread},
    };

    /// As loom's: a latch that one thread waits for.
    pub struct Notify(Mutex<bool>, Condvar);

    impl Notify {
        pub fn new() -> Self {
            Self(Mutex::new(false), Condvar::new())
        }

        pub fn notify(&self) {
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }

        pub fn wait(&self) {
            let mut is_notified = self.1.wait_while(self.0.lock().unwrap(), |is_notified| !*is_notified).unwrap();
            *is_notified = false;
        }
    }

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    pub fn block_on<F: Future>(future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            thread::park();
        }
    }
}
