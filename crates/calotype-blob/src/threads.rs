//! The one place where this crate starts threads.
//!
//! A thread here computes and talks through channels; it never does I/O, and ends when its channels are
//! closed. They are threads of their own and not tokio's blocking ones, because each lives as long as an
//! upload does: as blocking tasks, enough slow uploads would leave no room for the store's own calls,
//! for which the uploads wait.

use std::thread;

use calotype_core::{Error, Result};
use tokio::sync::oneshot;

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
