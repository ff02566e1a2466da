//! More than there is room for: what comes too much is refused at once and told when to come again, and what runs goes on.

use std::time::Instant;

use calotype_tests::{Answer, Client, Content, Digests, Options, Server, config, database, until};
use reqwest::Method;
use serde_json::json;

use crate::slow_clients::{Wire, queued, upload_head};

fn refused(server: &Server, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    server.metric("calotype_http_refused_total", &[&reason])
}

fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").parse().expect("seconds")
}

fn health_is_answered(server: &Server) {
    for node in server.bases() {
        for path in ["/healthz", "/readyz", "/metrics"] {
            Client::anonymous(node).get(path).expect(200);
        }
    }
}

/// A request whose body is not sent to its end.
fn held(server: &Server, client: &Client) -> Wire {
    let mut wire = Wire::open(server.base());
    let head = format!(
        "POST /v2/images HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{",
        client.token()
    );
    wire.send_all(head.as_bytes());
    wire
}

#[test]
fn requests_beyond_the_bound_are_refused_while_health_is_answered_and_transfers_go_on() {
    let url = database::fresh("load_requests");
    let text = format!("{}\n{}", config::postgres(&url), config::at_once(1000, 3));
    let server = Server::start(Options::config(text));
    let client = server.user();
    let image = queued(&client);
    let mut upload = Wire::open(server.base());
    upload.send_all(upload_head(&client, &image, 300_000).as_bytes());
    let bytes = Content::bytes(5, 300_000);
    upload.send_all(&bytes[..1000]);
    until("the upload to run", || {
        (server.metric("calotype_uploads_in_flight", &[]) == 1.0).then_some(())
    });
    let locked = database::Locked::table(&url, "images");
    // The upload does not count any more: three more are worked at.
    let list = format!(
        "GET /v2/images HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {}\r\n\r\n",
        client.token()
    );
    let mut wires: Vec<Wire> = (0..3).map(|_| Wire::open(server.base())).collect();
    for wire in &mut wires {
        wire.send_all(list.as_bytes());
    }
    until("all to be worked at", || {
        // With the upload, and the question itself.
        (server.metric("calotype_http_requests_in_flight", &[]) == 5.0).then_some(())
    });
    let native = client.get("/v2/images");
    assert_eq!((native.status, retry_after(&native)), (503, 1));
    let ims = client.get("/v2/cloudimages");
    ims.refused(503, "IMG.0061");
    assert_eq!(retry_after(&ims), 1);
    assert_eq!(client.get("/identity/v3/auth/tokens").status, 503);
    health_is_answered(&server);
    assert_eq!(refused(&server, "requests"), 3.0);
    drop(locked);
    upload.send_all(&bytes[1000..]);
    assert_eq!(upload.status(), 204);
    for wire in &mut wires {
        assert_eq!(wire.status(), 200);
    }
    assert_eq!(
        client.download(&image),
        Digests::of(Content::new(5, 300_000))
    );
}

/// Begins forty requests whose bodies do not come, to a server whose nodes work at ten each.
fn forty_keep_nobody_out(server: &Server, client: &Client, begin: impl Fn(usize) -> Wire) {
    // The question itself is in flight, too.
    let questions = server.bases().count();
    let mut wires = Vec::new();
    for at in 0..40 {
        wires.push(begin(at));
        until("the request to arrive", || {
            let in_flight = server.metric("calotype_http_requests_in_flight", &[]);
            (in_flight == (wires.len() + questions) as f64).then_some(())
        });
    }
    client.get("/v2/images").expect(200);
    client.image("good", 1, 300_000);
    for wire in wires.iter_mut().skip(1).step_by(2) {
        wire.send_all(b"}");
        assert_eq!(wire.status(), 201);
    }
    assert_eq!(refused(server, "requests"), 0.0);
}

#[test]
fn requests_whose_bodies_do_not_come_keep_nobody_out() {
    let server = Server::start(Options::config(config::at_once(1000, 10)));
    let client = server.user();
    forty_keep_nobody_out(&server, &client, |_| held(&server, &client));
}

#[test]
fn logins_whose_bodies_do_not_come_keep_nobody_out() {
    // Keystone has them else.
    let server = Server::start(Options::config(config::at_once(1000, 10)).embedded());
    let client = server.user();
    forty_keep_nobody_out(&server, &client, |at| {
        if at % 2 == 1 {
            return held(&server, &client);
        }
        let mut login = Wire::open(server.base());
        login.send_all(
            b"POST /identity/v3/auth/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        );
        login
    });
}

#[test]
fn connections_beyond_the_bound_can_ask_for_health_and_are_refused_all_else() {
    let server = Server::start(Options::config(config::at_once(30, 1000)));
    let node = server.one_base();
    let client = server.user().at(node);
    client.get("/v2/images").expect(200);
    let wires: Vec<Wire> = (0..40).map(|_| Wire::open(node)).collect();
    let answer = until("a refusal", || {
        let answer = Client::anonymous(node).get("/v2/cloudimages");
        (answer.status == 503).then_some(answer)
    });
    answer.refused(503, "IMG.0061");
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(retry_after(&answer), 1);
    health_is_answered(&server);
    assert!(refused(&server, "connections") >= 1.0);
    // The connection of who was there before is as good as ever.
    client.get("/v2/images").expect(200);
    drop(wires);
    until("room again", || {
        let answer = Client::anonymous(node).get("/versions");
        (answer.status == 200).then_some(())
    });
}

#[test]
fn uploads_beyond_a_projects_bound_and_beyond_the_nodes_are_refused() {
    let server = Server::start(Options::config(config::uploads(6, 3, 3)));
    let node = server.one_base();
    let one = server.user().at(node);
    let two = server.admin().new_project("two", "member").at(node);
    let running = |client: &Client, count: f64| {
        let image = queued(client);
        let mut wire = Wire::open(node);
        wire.send_all(upload_head(client, &image, 1000).as_bytes());
        wire.send_all(&[1; 10]);
        until("the upload to run", || {
            (server.metric("calotype_uploads_in_flight", &[]) == count).then_some(())
        });
        (wire, image)
    };
    let mut uploads = vec![running(&one, 1.0), running(&one, 2.0)];
    let third = queued(&one);
    let upload = |client: &Client, image: &str| {
        let path = format!("/v2/images/{image}/file");
        client.raw(
            Method::PUT,
            &path,
            "application/octet-stream",
            vec![1; 1000],
        )
    };
    let answer = upload(&one, &third);
    assert_eq!(answer.status, 429);
    assert!(retry_after(&answer) > 0);
    assert_eq!(one.show(&third)["status"], "queued");
    uploads.push(running(&two, 3.0));
    let fourth = queued(&two);
    let answer = upload(&two, &fourth);
    assert_eq!(answer.status, 503);
    assert!(retry_after(&answer) > 0);
    for (wire, _) in &mut uploads {
        wire.send_all(&[1; 990]);
        assert_eq!(wire.status(), 204);
    }
    assert_eq!(upload(&one, &third).status, 204);
    assert_eq!(upload(&two, &fourth).status, 204);
    assert_eq!(refused(&server, "project_uploads"), 1.0);
    assert_eq!(refused(&server, "uploads"), 1.0);
}

/// Makes requests until one is refused; that one, and how many were not.
fn until_refused(mut ask: impl FnMut() -> Answer) -> (Answer, u64) {
    for served in 0..1000 {
        let answer = ask();
        if answer.status == 429 {
            return (answer, served);
        }
    }
    panic!("a thousand requests in a row");
}

#[test]
fn a_project_that_asks_too_much_is_told_so_in_the_form_of_each_api_and_others_are_not() {
    let server = Server::start(Options::config(config::project_rate(90, 3)));
    let node = server.one_base();
    let one = server.user().direct().at(node);
    let two = server.admin().new_project("two", "member").at(node);
    let (answer, served) = until_refused(|| one.get("/v2/cloudimages"));
    assert!(served >= 30, "{served}");
    answer.refused(429, "IMG.0060");
    assert!(retry_after(&answer) > 0);
    let (answer, _) = until_refused(|| one.get("/v2/images"));
    assert!(answer.json()["message"].is_string(), "{answer:?}");
    assert!(retry_after(&answer) > 0);
    let (answer, _) = until_refused(|| one.get("/identity/v3/auth/tokens"));
    assert_eq!(answer.json()["error"]["code"], 429);
    let path = format!("/kms/v1.0/{}/kms/list-keys", one.project());
    let (answer, _) = until_refused(|| one.post(&path, json!({})));
    assert!(
        answer.json()["error"]["error_code"].is_string(),
        "{answer:?}"
    );
    two.get("/v2/images").expect(200);
    health_is_answered(&server);
    assert!(refused(&server, "project_rate") >= 4.0);
}

#[test]
fn an_upload_that_is_one_request_too_many_is_told_so_though_its_client_still_sends() {
    let server = Server::start(Options::config(config::project_rate(90, 3)));
    let client = server.user();
    let path = format!("/v2/images/{}/file", client.create("large"));
    until_refused(|| client.get("/v2/images"));
    let bytes = vec![1; 20 << 20];
    let upload = || {
        client.raw(
            Method::PUT,
            &path,
            "application/octet-stream",
            bytes.clone(),
        )
    };
    let (answer, _) = until_refused(upload);
    assert!(retry_after(&answer) > 0);
}

#[test]
fn an_address_without_a_good_credential_has_its_share_and_each_behind_a_proxy_its_own() {
    let server = Server::start(Options::config(config::address_rate(60, 3)));
    let user = server.user();
    let from = |address: &str, token: Option<&str>| {
        let client = Client::anonymous(server.one_base());
        let mut request = client.request(Method::GET, "/versions");
        request = request.header("x-forwarded-for", address);
        if let Some(token) = token {
            request = request.header("x-auth-token", token);
        }
        calotype_tests::client::send(request)
    };
    let (answer, served) = until_refused(|| from("203.0.113.1", None));
    assert!(served >= 20, "{served}");
    assert!(retry_after(&answer) > 0);
    let (_, served) = until_refused(|| from("203.0.113.2", Some("no such token")));
    assert!(served >= 20, "{served}");
    // What the client writes there itself stands before what the proxy writes.
    let (_, served) = until_refused(|| from("203.0.113.9, 203.0.113.1", None));
    assert!(served < 20, "{served}");
    assert_eq!(from("203.0.113.3", None).status, 200);
    assert_eq!(from("203.0.113.1", Some(user.token())).status, 200);
    health_is_answered(&server);
}

#[test]
fn two_nodes_together_give_a_project_what_its_limit_says() {
    let url = database::fresh("load_two_nodes");
    let store = tempfile::tempdir().expect("a directory");
    let shared = config::shared(&url, store.path());
    let text = format!("{shared}\n{}", config::project_rate(40, 2));
    let nodes = [(); 2].map(|()| Server::start(Options::config(text.clone())));
    let one = nodes[0].user();
    let both = [one.clone(), one.at(nodes[1].base())];
    let start = Instant::now();
    let mut served = 0;
    for turn in 0..200 {
        // As a balancer that sends each request to the next node.
        if both[turn % 2].get("/v2/images").status == 200 {
            served += 1;
        }
    }
    // One a second, whenever the last of them was asked; and what each node rounds up.
    let most = 40 + start.elapsed().as_secs() + 2;
    assert!(served >= 40, "{served}");
    assert!(served <= most, "{served} of {most}");
}
