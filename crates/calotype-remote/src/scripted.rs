//! A transport that answers as it is told. For tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use calotype_core::ports::Entropy;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::transport::{Answer, Request, Transport, Trouble};

/// What happens to a request.
pub enum Step {
    /// An answer: status, headers and body.
    Answer(u16, &'static [(&'static str, &'static str)], String),
    /// No answer.
    Trouble(Trouble),
    /// Nothing, ever.
    Hang,
}

/// An answer with a JSON body.
pub fn json(status: u16, body: impl Into<String>) -> Step {
    Step::Answer(status, &[], body.into())
}

/// Plays its steps in order, and keeps what it was sent.
#[derive(Default)]
pub struct Script {
    steps: Mutex<VecDeque<Step>>,
    sent: Mutex<Vec<(Instant, Request)>>,
}

impl Script {
    /// A script of these steps.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Arc<Self> {
        Arc::new(Self {
            steps: Mutex::new(steps.into_iter().collect()),
            sent: Mutex::default(),
        })
    }

    /// What was sent so far, and when.
    pub fn sent(&self) -> Vec<(Instant, Request)> {
        locked(&self.sent).clone()
    }
}

#[async_trait::async_trait]
impl Transport for Script {
    #[expect(
        clippy::expect_used,
        reason = "only tests have a script, and it was theirs to write"
    )]
    async fn send(&self, request: Request) -> Result<Answer, Trouble> {
        locked(&self.sent).push((Instant::now(), request));
        let step = locked(&self.steps).pop_front();
        match step.expect("no more was to be asked") {
            Step::Answer(status, headers, body) => {
                let mut map = HeaderMap::new();
                for (name, value) in headers {
                    map.insert(
                        HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    );
                }
                Ok(Answer {
                    status,
                    headers: map,
                    body: Zeroizing::new(body.into_bytes()),
                })
            }
            Step::Trouble(trouble) => Err(trouble),
            Step::Hang => std::future::pending().await,
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bits that are all the same.
pub struct Same(pub u8);

impl Entropy for Same {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}
