//! The one place where this crate starts threads.
//!
//! Those of an upload ([`spawn`]) compute, and never do I/O. They talk through channels, and end when these are closed.
//! They are threads of their own and not tokio's blocking ones, because each lives as long as an upload does: as blocking
//! tasks, enough slow uploads would leave no room for the store's own calls, for which the uploads wait. The
//! [`Background`] has threads for whole tasks, their I/O included.

use std::cell::Cell;
use std::thread;

use calotype_core::{Error, Result};
use rustix::process::setpriority_process;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How far the background gives way (`nice(2)`): to a processor that it shares it is worth a tenth of what answers
/// requests is, and has all of one that nobody else wants.
const GIVES_WAY: i32 = 10;

thread_local! {
    static IN_BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is a thread of a [`Background`]: nobody who asks for something waits for it.
pub(crate) fn in_background() -> bool {
    IN_BACKGROUND.get()
}

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

/// Threads for what takes long and must not be felt by others: one that computes for each processor, and beside them
/// those that wait for the store. What answers requests shares no thread and no queue with them.
pub(crate) struct Background(Option<Runtime>);

impl Background {
    /// The threads; those for the store start when there is work.
    pub(crate) fn new(threads: usize) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("blob-reseal")
            .enable_time()
            .on_thread_start(|| {
                IN_BACKGROUND.set(true);
                // Where it is refused, the background is as important as everything else.
                let _ = setpriority_process(None, GIVES_WAY);
            })
            .build();
        // Without it the work is done by the threads that do the rest.
        Self(runtime.ok())
    }

    /// Runs a task to its end, or until the future is dropped: then the task stops where it next waits.
    ///
    /// # Errors
    /// The task's, and one where it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let handle = match &self.0 {
            Some(runtime) => runtime.handle().clone(),
            None => Handle::current(),
        };
        // A set that is dropped aborts what is in it.
        let mut running = JoinSet::new();
        running.spawn_on(task, &handle);
        match running.join_next().await {
            Some(ended) => ended.map_err(Error::internal)?,
            None => Err(Error::internal("a task of the background is gone")),
        }
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
