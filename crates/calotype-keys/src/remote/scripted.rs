//! A transport that answers as it is told. For tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use calotype_core::ports::Entropy;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::transport::{Answer, Request, Transport, Trouble};

/// What happens to a request.
pub(crate) enum Step {
    Answer(u16, &'static [(&'static str, &'static str)], String),
    Trouble(Trouble),
    Hang,
}

/// An answer with a JSON body.
pub(crate) fn json(status: u16, body: impl Into<String>) -> Step {
    Step::Answer(status, &[], body.into())
}

/// Plays its steps in order, and keeps what it was sent.
#[derive(Default)]
pub(crate) struct Script {
    steps: Mutex<VecDeque<Step>>,
    sent: Mutex<Vec<(Instant, Request)>>,
}

impl Script {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Arc<Self> {
        Arc::new(Self {
            steps: Mutex::new(steps.into_iter().collect()),
            sent: Mutex::default(),
        })
    }

    pub(crate) fn sent(&self) -> Vec<(Instant, Request)> {
        self.sent.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl Transport for Script {
    async fn send(&self, request: Request) -> Result<Answer, Trouble> {
        self.sent.lock().unwrap().push((Instant::now(), request));
        let step = self.steps.lock().unwrap().pop_front();
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

/// Bits that are all the same.
pub(crate) struct Same(pub(crate) u8);

impl Entropy for Same {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}
