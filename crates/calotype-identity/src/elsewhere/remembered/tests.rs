use std::sync::atomic::{AtomicUsize, Ordering};

use calotype_core::ErrorKind;
use calotype_remote::scripted::Same;
use tokio::time::advance;

use super::*;
use crate::memory::SetClock;

const LIFE: Duration = Duration::from_secs(60);

struct World {
    remembered: Remembered<usize>,
    clock: Arc<SetClock>,
    asked: AtomicUsize,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(SetClock::at(Timestamp::from_micros(0)));
        let as_port = Arc::clone(&clock) as _;
        Self {
            remembered: Remembered::new("token", LIFE, 100, &Same(7), as_port),
            clock,
            asked: AtomicUsize::new(0),
        }
    }

    /// What is known of a credential; asking takes a second and counts.
    async fn get(&self, credential: &str, left: Option<Duration>) -> Result<usize> {
        let ask = async {
            let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
            match credential {
                "away" => Err(Error::unavailable("it is away")),
                "bad" => Ok(Told::Refused("it is bad")),
                _ => Ok(Told::Good(number, left)),
            }
        };
        self.remembered
            .get(credential, ask)
            .await
            .map(|number| *number)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn of_those_who_come_at_once_one_asks() {
    for credential in ["good", "bad", "away"] {
        let world = World::new();
        let all = (0..32).map(|_| world.get(credential, None));
        let outcomes = futures_util::future::join_all(all).await;
        assert_eq!(world.asked(), 1, "{credential}");
        let good = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(good, if credential == "good" { 32 } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_while_asking_leaves_its_place_to_the_next() {
    let world = World::new();
    let patience = Duration::from_millis(500);
    let first = tokio::time::timeout(patience, world.get("good", None));
    assert!(first.await.is_err());
    assert_eq!(world.get("good", None).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_is_believed_for_its_life_since_it_was_asked_for() {
    let world = World::new();
    assert_eq!(world.get("good", None).await.unwrap(), 1);
    advance(LIFE - Duration::from_millis(1001)).await;
    assert_eq!(world.get("good", None).await.unwrap(), 1);
    assert_eq!(world.get("other", None).await.unwrap(), 2);
    advance(Duration::from_millis(2)).await;
    assert_eq!(world.get("good", None).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_believed_past_the_credentials_own_end() {
    let world = World::new();
    let left = Some(Duration::from_secs(5));
    assert_eq!(world.get("good", left).await.unwrap(), 1);
    advance(Duration::from_secs(3)).await;
    assert_eq!(world.get("good", left).await.unwrap(), 1);
    advance(Duration::from_secs(1)).await;
    assert_eq!(world.get("good", left).await.unwrap(), 2);
    assert_eq!(world.get("over", Some(Duration::ZERO)).await.unwrap(), 3);
    assert_eq!(world.get("over", Some(Duration::ZERO)).await.unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_day_that_passed_while_the_machine_slept_ends_it() {
    let world = World::new();
    assert_eq!(world.get("good", None).await.unwrap(), 1);
    world.clock.set(Timestamp::from_micros(0).plus(LIFE));
    assert_eq!(world.get("good", None).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_believed_briefly_and_an_absence_not_at_all() {
    let world = World::new();
    for _ in 0..2 {
        let refused = world.get("bad", None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    }
    assert_eq!(world.asked(), 1);
    advance(REFUSED).await;
    world.get("bad", None).await.unwrap_err();
    assert_eq!(world.asked(), 2);
    for _ in 0..2 {
        let away = world.get("away", None).await.unwrap_err();
        assert!(matches!(away.kind(), ErrorKind::Unavailable { .. }));
    }
    assert_eq!(world.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_so_many() {
    let world = World::new();
    for number in 0..300 {
        world.get(&format!("token-{number}"), None).await.unwrap();
    }
    world.remembered.entries.run_pending_tasks().await;
    assert!(world.remembered.entries.entry_count() <= 100);
}
