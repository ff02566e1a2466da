//! The device's time, shared between projects.
//!
//! A piece of work asks for a turn, and holds it while it works. Turns are few. When one is free, it goes to the
//! project that holds the fewest, and within a project to whoever has waited longest: so no project's hundred
//! pieces hold up another's one.
//!
//! # Cancellation
//! A future that is dropped while it waits leaves the queue; a turn that is dropped is free.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use calotype_core::id::ProjectId;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The turns.
pub(crate) struct Turns(Arc<Mutex<State>>);

struct State {
    free: usize,
    /// Held turns, for each project that holds any.
    held: BTreeMap<ProjectId, usize>,
    /// Who waits, in the order in which they came.
    waiting: VecDeque<(ProjectId, oneshot::Sender<Turn>)>,
}

/// A turn. It is free again when it is dropped.
pub(crate) struct Turn {
    /// None: it was never anybody's.
    state: Option<Arc<Mutex<State>>>,
    project: ProjectId,
}

impl Turns {
    /// So many turns at once; at least one.
    pub(crate) fn new(turns: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: turns.max(1),
            held: BTreeMap::new(),
            waiting: VecDeque::new(),
        })))
    }

    /// A turn for a project.
    pub(crate) async fn take(&self, project: &ProjectId) -> Turn {
        loop {
            let (sender, receiver) = oneshot::channel();
            {
                let mut state = lock(&self.0);
                state.waiting.push_back((project.clone(), sender));
                hand_out(&self.0, &mut state);
            }
            // An error can't come: a sender leaves the queue only with a turn.
            if let Ok(turn) = receiver.await {
                return turn;
            }
        }
    }
}

/// Gives the free turns to those who wait.
fn hand_out(shared: &Arc<Mutex<State>>, state: &mut State) {
    while state.free > 0 {
        state.waiting.retain(|(_, sender)| !sender.is_closed());
        let next = (0..state.waiting.len()).min_by_key(|at| {
            let (project, _) = &state.waiting[*at];
            state.held.get(project).copied().unwrap_or_default()
        });
        let Some((project, sender)) = next.and_then(|at| state.waiting.remove(at)) else {
            return;
        };
        state.free -= 1;
        *state.held.entry(project.clone()).or_default() += 1;
        let turn = Turn {
            state: Some(Arc::clone(shared)),
            project,
        };
        if let Err(mut turn) = sender.send(turn) {
            // Who waited is gone in this very moment. The turn's drop would take the lock that we hold.
            turn.state = None;
            put_back(state, &turn.project);
        }
    }
}

fn put_back(state: &mut State, project: &ProjectId) {
    state.free += 1;
    if let Some(held) = state.held.get_mut(project) {
        *held -= 1;
        if *held == 0 {
            state.held.remove(project);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(shared) = &self.state {
            let mut state = lock(shared);
            put_back(&mut state, &self.project);
            hand_out(shared, &mut state);
        }
    }
}

fn lock(state: &Arc<Mutex<State>>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A limit in bytes a second. Each piece of work says how much it is about to do, and waits for its time.
pub(crate) struct Pace {
    /// None: no limit.
    bytes_per_second: Option<u64>,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// A limit; none, or zero, is no limit.
    pub(crate) const fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second,
            next: Mutex::new(None),
        }
    }

    /// Waits until so many bytes may be done.
    pub(crate) async fn wait(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second.filter(|rate| *rate > 0) else {
            return;
        };
        let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            // What was not used is not saved up.
            let now = Instant::now();
            let at = next.map_or(now, |next| next.max(now));
            *next = Some(at + takes);
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> ProjectId {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_turn_goes_to_the_project_that_holds_the_fewest() {
        let turns = Arc::new(Turns::new(2));
        let first = turns.take(&project("many")).await;
        let second = turns.take(&project("many")).await;
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for name in ["many", "many", "many", "one"] {
            let (queue, sender) = (Arc::clone(&turns), sender.clone());
            let task = tokio::spawn(async move {
                let turn = queue.take(&project(name)).await;
                sender.send((name, turn)).unwrap();
            });
            // Each is in the queue before the next one comes.
            while lock(&turns.0).waiting.len() <= tasks.len() {
                tokio::task::yield_now().await;
            }
            tasks.push(task);
        }
        drop(first);
        let (name, one) = order.recv().await.unwrap();
        assert_eq!(name, "one", "though it came last");
        drop(second);
        let (name, _many) = order.recv().await.unwrap();
        assert_eq!(name, "many");
        drop(one);
        assert_eq!(order.recv().await.unwrap().0, "many");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_takes_no_turn() {
        let turns = Arc::new(Turns::new(1));
        let held = turns.take(&project("a")).await;
        let waiter = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(&project("b")).await }
        });
        while lock(&turns.0).waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        waiter.abort();
        assert!(waiter.await.is_err());
        drop(held);
        let turn = turns.take(&project("c")).await;
        assert_eq!(lock(&turns.0).held.len(), 1);
        drop(turn);
        let state = lock(&turns.0);
        assert!(state.free == 1 && state.held.is_empty() && state.waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_at_the_pace_and_no_faster() {
        let pace = Pace::new(Some(1000));
        let begin = Instant::now();
        for _ in 0..5 {
            pace.wait(500).await;
        }
        assert_eq!(begin.elapsed().as_millis(), 2000);
        tokio::time::advance(Duration::from_secs(60)).await;
        let later = Instant::now();
        pace.wait(1000).await;
        pace.wait(1000).await;
        assert_eq!(later.elapsed().as_millis(), 1000, "nothing was saved up");
        Pace::new(None).wait(u64::MAX).await;
        Pace::new(Some(0)).wait(u64::MAX).await;
    }
}
