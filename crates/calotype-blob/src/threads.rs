//! The one place where this crate starts threads.
//!
//! A thread here computes; it never does I/O. Those of an upload ([`spawn`]) talk through channels, and end when these
//! are closed. They are threads of their own and not tokio's blocking ones, because each lives as long as an
//! upload does: as blocking tasks, enough slow uploads would leave no room for the store's own calls,
//! for which the uploads wait. Those of the [`Background`] are as many as there are processors.

use std::thread;

use calotype_core::{Error, Result};
use rustix::process::setpriority_process;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// How far the background gives way (`nice(2)`): to a processor that it shares it is worth a tenth of what answers
/// requests is, and has all of one that nobody else wants.
const GIVES_WAY: i32 = 10;

/// Runs `work` on a thread of its own. The receiver gets what it returns, or an error if it panicked.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Nobody may be waiting any more: the write was given up.
            let _ = sender.send(work());
        })
        .map_err(Error::unavailable)?;
    Ok(receiver)
}

/// A thread for each processor, for what takes long and must not be felt by others.
pub(crate) struct Background(Option<Runtime>);

impl Background {
    /// The threads; they start when there is work.
    pub(crate) fn new(threads: usize) -> Self {
        let runtime = Builder::new_current_thread()
            .thread_name("blob-reseal")
            .max_blocking_threads(threads.max(1))
            .on_thread_start(|| {
                // Where it is refused, the background is as important as everything else.
                let _ = setpriority_process(None, GIVES_WAY);
            })
            .build();
        // Without it the work is done by the threads that do the rest.
        Self(runtime.ok())
    }

    /// Computes something. An error where it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let running = match &self.0 {
            Some(runtime) => runtime.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        };
        running.await.map_err(Error::internal)?
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // What runs ends by itself soon, and nobody waits for it.
            runtime.shutdown_background();
        }
    }
}
