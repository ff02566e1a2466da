//! A KMS and a Keystone of the test's own, over real sockets, which break as they are told.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// How a call of the KMS goes wrong.
pub(crate) enum Fault {
    /// Another answer.
    Answer(u16, &'static str, String),
    /// The right answer, changed.
    Changed(fn(&mut Value)),
    /// Nothing comes.
    SlowHeaders,
    /// The body stops half way.
    SlowBody,
    /// The connection ends in the middle of the body.
    Truncated,
    /// The connection ends without an answer.
    Reset,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Value,
}

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    seen: Vec<Seen>,
    logins: usize,
    keys: HashMap<String, Value>,
    callers: HashMap<String, (u16, &'static str)>,
}

/// The server.
pub(crate) struct Stub {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Stub {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Behind TLS.
    pub(crate) async fn start_tls(acceptor: TlsAcceptor) -> Self {
        Self::start_with(Some(acceptor)).await
    }

    async fn start_with(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let address = listener.local_addr().expect("an address");
        let url = format!("{scheme}://{address}");
        let state = Arc::new(Mutex::new(State::default()));
        let (serving, base) = (Arc::clone(&state), url.clone());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (state, base) = (Arc::clone(&serving), base.clone());
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(connection, &state, &base).await,
                        // Whoever does not trust us goes away here.
                        Some(acceptor) => {
                            if let Ok(connection) = acceptor.accept(connection).await {
                                serve(connection, &state, &base).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }

    /// Makes a key with these fields beside its id.
    pub(crate) fn key(&self, id: &str, fields: Value) {
        self.state().keys.insert(id.to_owned(), fields);
    }

    /// What the KMS answers to a caller's token.
    pub(crate) fn caller(&self, token: &str, status: u16, code: &'static str) {
        self.state()
            .callers
            .insert(token.to_owned(), (status, code));
    }

    /// The next calls of the KMS go wrong.
    pub(crate) fn break_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// The faults that are still to come.
    pub(crate) fn faults_left(&self) -> usize {
        self.state().faults.len()
    }

    /// How often the service logged in.
    pub(crate) fn logins(&self) -> usize {
        self.state().logins
    }

    /// The calls of the KMS with this name.
    pub(crate) fn seen(&self, call: &str) -> Vec<Seen> {
        let state = self.state();
        let named = state.seen.iter().filter(|seen| seen.path.ends_with(call));
        named.cloned().collect()
    }
}

/// What bytes go over.
trait Wire: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

async fn serve(mut connection: impl Wire, state: &Mutex<State>, base: &str) {
    while let Some(seen) = receive(&mut connection).await {
        if seen.path.ends_with("/v3/auth/tokens") {
            let login = {
                let mut state = state.lock().expect("the state");
                state.logins += 1;
                format!("service-{}", state.logins)
            };
            let answer = token_document(base).to_string();
            let header = format!("X-Subject-Token: {login}\r\n");
            send(&mut connection, 201, &header, &answer).await;
            continue;
        }
        let (fault, right) = {
            let mut state = state.lock().expect("the state");
            let right = answer(&state, &seen);
            state.seen.push(seen);
            (state.faults.pop_front(), right)
        };
        let (status, mut body) = right;
        match fault {
            None => send(&mut connection, status, "", &body.to_string()).await,
            Some(Fault::Changed(change)) => {
                change(&mut body);
                send(&mut connection, status, "", &body.to_string()).await;
            }
            Some(Fault::Answer(status, headers, body)) => {
                send(&mut connection, status, headers, &body).await;
            }
            Some(Fault::SlowHeaders) => return hang(&mut connection).await,
            Some(Fault::SlowBody) => {
                part(&mut connection, &body.to_string()).await;
                return hang(&mut connection).await;
            }
            Some(Fault::Truncated) => return part(&mut connection, &body.to_string()).await,
            Some(Fault::Reset) => return,
        }
    }
}

fn token_document(base: &str) -> Value {
    let place = |url: String| json!({"interface": "public", "region_id": "eu-de", "url": url});
    json!({"token": {
        "expires_at": "2099-01-01T00:00:00.000000Z", "user": {"id": "svc"}, "project": {"id": "sp"},
        "catalog": [
            {"type": "kmsv1", "endpoints": [place(format!("{base}/v1.0/sp"))]},
            {"type": "kms", "endpoints": [place(format!("{base}/wrong"))]},
        ],
    }})
}

fn refusal(status: u16, code: &str) -> (u16, Value) {
    (
        status,
        json!({"error": {"error_code": code, "error_msg": "no"}}),
    )
}

fn answer(state: &State, seen: &Seen) -> (u16, Value) {
    let token = seen.headers.get("x-auth-token").map_or("", String::as_str);
    let signed = seen
        .headers
        .get("authorization")
        .is_some_and(|value| value.starts_with("SDK-"));
    let current = format!("service-{}", state.logins);
    let project = seen.path.split('/').nth(2).unwrap_or_default();
    if let Some((status, code)) = state.callers.get(token) {
        if project != "cp" {
            return refusal(403, "KMS.0321");
        }
        if *status != 200 {
            return refusal(*status, code);
        }
    } else if !signed && (token != current || project != "sp") {
        return refusal(401, "KMS.0302");
    }
    let id = seen.body["key_id"].as_str().unwrap_or_default();
    let Some(key) = state.keys.get(id) else {
        return refusal(404, "KMS.0207");
    };
    let context = seen
        .body
        .get("encryption_context")
        .or(seen.body.get("additional_authenticated_data"));
    match seen.path.rsplit('/').next() {
        Some("describe-key") => {
            let mut info = key.clone();
            info["key_id"] = id.into();
            (200, json!({"key_info": info}))
        }
        Some("encrypt-datakey") => {
            let plain =
                hex::decode(seen.body["plain_text"].as_str().expect("a text")).expect("hex");
            assert_eq!(plain.len(), 96);
            assert_eq!(digest(&SHA256, &plain[..64]).as_ref(), &plain[64..]);
            assert_eq!(seen.body["datakey_plain_length"], "64");
            let kept = json!([id, context, hex::encode(&plain[..64])]).to_string();
            (
                200,
                json!({"key_id": id, "cipher_text": hex::encode_upper(kept), "datakey_length": "64"}),
            )
        }
        Some("decrypt-datakey") => {
            assert_eq!(seen.body["datakey_cipher_length"], "64");
            let kept = hex::decode(seen.body["cipher_text"].as_str().expect("a text"));
            let kept: Value = kept
                .ok()
                .and_then(|kept| serde_json::from_slice(&kept).ok())
                .unwrap_or_default();
            if kept[0] != id || kept.get(1) != Some(&json!(context)) {
                return refusal(400, "KMS.2201");
            }
            let block = hex::decode(kept[2].as_str().expect("a text")).expect("hex");
            let check = hex::encode_upper(digest(&SHA256, &block));
            (
                200,
                json!({"data_key": hex::encode_upper(&block), "datakey_length": "64", "datakey_dgst": check}),
            )
        }
        _ => refusal(404, "KMS.0201"),
    }
}

async fn receive(connection: &mut impl Wire) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers
        .get("content-length")
        .map_or(0, |length| length.parse().expect("a length"));
    let mut body = bytes.split_off(end);
    while body.len() < length {
        if connection.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Some(Seen {
        path,
        headers,
        body,
    })
}

async fn send(connection: &mut impl Wire, status: u16, headers: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    // Whoever does not wait for it has gone.
    let _ = connection.write_all(text.as_bytes()).await;
}

async fn part(connection: &mut impl Wire, body: &str) {
    let (length, half) = (body.len(), &body[..body.len() / 2]);
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{half}");
    let _ = connection.write_all(text.as_bytes()).await;
}

/// Until the client has had enough.
async fn hang(connection: &mut impl Wire) {
    let _ = connection.read_u8().await;
}
