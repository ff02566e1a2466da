//! Several disks imported together: an image of each, a job with parts, and what one that fails or is killed leaves.

use calotype_tests::{Client, Content, Digests, Options, Server, client, config, until};
use serde_json::{Value, json};

const V2: &str = "/v2/cloudimages/action";

/// An object for the system's disk and three for disks of data, each with other bytes.
fn four(server: &Server) -> Vec<String> {
    let put = |n| server.put_object(&format!("disk{n}.raw"), Content::new(n, 100_000 + n));
    (0..4).map(put).collect()
}

fn parts(document: &Value) -> Vec<Value> {
    let parts = document["entities"]["sub_jobs_result"].as_array();
    parts.expect("parts").clone()
}

fn image_of(part: &Value) -> String {
    client::text(&part["entities"]["image_id"])
}

#[test]
fn each_disk_becomes_an_image_and_the_job_names_them_all() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let key = client.create_key("k");
    let objects = four(&server);
    let job = client.begin_import(
        &objects[0],
        json!({
            "name": "web", "description": "of all", "tags": ["env=dev"], "cmk_id": key,
            "os_version": "CentOS 7.2 64bit", "min_ram": 1024,
            "data_images": [
                {"image_url": objects[1], "min_disk": 2048},
                {"image_url": objects[2], "min_disk": 1, "name": "logs", "description": "own",
                    "image_tags": [{"key": "disk", "value": "logs"}]},
                {"image_url": objects[3], "min_disk": "10"},
            ],
        }),
    );
    let ended = client.job(&job).document;
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    assert_eq!(ended["job_type"], "imsImportOvaImageJob");
    assert_eq!(ended["entities"]["process_percent"], 1.0);
    assert_eq!(ended["calotype"]["bytes_total"], 400_006);
    assert_eq!(ended["calotype"]["bytes_done"], 400_006);
    let parts = parts(&ended);
    let ids: Vec<_> = parts.iter().map(|part| part["job_id"].clone()).collect();
    assert_eq!(ended["entities"]["sub_jobs_list"], json!(ids));
    let progress = client
        .get(&format!("/v1/cloudimages/job/{job}"))
        .expect(200);
    assert_eq!(progress.json()["entities"]["sub_jobs_list"], json!(ids));
    let wanted = [
        (
            "imsImportImageJob",
            "web",
            "of all",
            "env=dev",
            40,
            "FusionCompute",
        ),
        (
            "imsImportDataImageJob",
            "web-1",
            "of all",
            "env=dev",
            2048,
            "DataImage",
        ),
        (
            "imsImportDataImageJob",
            "logs",
            "own",
            "disk=logs",
            1,
            "DataImage",
        ),
        (
            "imsImportDataImageJob",
            "web-3",
            "of all",
            "env=dev",
            10,
            "DataImage",
        ),
    ];
    assert_eq!(parts.len(), wanted.len());
    for (number, (part, wanted)) in (0_u64..).zip(parts.iter().zip(wanted)) {
        let (job_type, name, description, tag, min_disk, environment) = wanted;
        assert_eq!(part["job_type"], job_type);
        assert_eq!(part["status"], "SUCCESS");
        assert_eq!(part["entities"]["image_name"], name);
        assert_eq!(part["entities"].get("sub_jobs_list"), None, "{part}");
        let own = client.job(&client::text(&part["job_id"])).document;
        assert_eq!(own["entities"]["image_id"], part["entities"]["image_id"]);
        let image = image_of(part);
        let shown = client.show(&image);
        assert_eq!(shown["name"], name);
        assert_eq!(shown["__description"], description);
        assert_eq!(shown["tags"], json!([tag]));
        assert_eq!(shown["min_disk"], min_disk);
        assert_eq!(shown["virtual_env_type"], environment);
        assert_eq!(shown["__os_type"], "Linux");
        assert_eq!(shown["__system__cmkid"], key);
        assert_eq!(
            shown["__data_origin"],
            format!("file,images:disk{number}.raw")
        );
        let bytes = Digests::of(Content::new(number, 100_000 + number));
        assert_eq!(client.download(&image), bytes);
        let line = client.audit("createImage");
        let line = line.iter().find(|line| line["resource_id"] == image);
        assert_eq!(line.expect("a line")["detail"]["job_id"], job);
    }
    let listed = client.get("/admin/v1/jobs").expect(200).json();
    let listed = listed["jobs"].as_array().expect("jobs");
    assert_eq!(listed.len(), 1, "{listed:?}");
    server.restart();
    server.verify();
}

#[test]
fn a_disk_that_fails_fails_the_job_and_the_images_of_the_others_stay() {
    let server = Server::start(Options::config(config::deletion_grace(0)));
    let client = server.user();
    let good = server.put_object("good.raw", Content::new(1, 100_000));
    let vast = server.put_object("vast.qcow2", &calotype_tests::program::qcow2("41G")[..]);
    let job = client.begin_import(
        &good,
        json!({"data_images": [{"image_url": vast, "min_disk": 40}]}),
    );
    let ended = client.job(&job).document;
    assert_eq!(ended["status"], "FAIL", "{ended}");
    assert_eq!(ended["error_code"], "IMG.0055");
    assert_eq!(ended["entities"]["error_code"], "IMG.0055");
    let [system, data] = &parts(&ended)[..] else {
        panic!("not two parts: {ended}");
    };
    assert_eq!(system["status"], "SUCCESS");
    assert_eq!(data["status"], "FAIL");
    assert_eq!(data["error_code"], "IMG.0055");
    let wanted = Digests::of(Content::new(1, 100_000));
    assert_eq!(client.download(&image_of(system)), wanted);
    assert_eq!(client.list().len(), 1);
    until("what was staged to go", || {
        (server.staged() == 0 && server.stored() == 1).then_some(())
    });
    server.verify();
}

#[test]
fn what_is_wrong_with_one_disk_refuses_them_all() {
    let server = Server::with_defaults();
    let client = server.user();
    let objects = four(&server);
    server.put_object("empty", &b""[..]);
    let before = client.state();
    let disk = |object: &str| json!({"image_url": object, "min_disk": 40});
    let eight = json!([{}, {}, {}, {}, {}, {}, {}, {}]);
    for (disks, code) in [
        (json!([disk("images:nothing")]), "IMG.0057"),
        (json!([disk(&objects[1]), disk("images:empty")]), "IMG.0057"),
        (json!([disk("elsewhere:x")]), "IMG.0069"),
        (json!([disk("x")]), "IMG.0017"),
        (json!([disk(&objects[0])]), "IMG.0123"),
        (json!([disk(&objects[1]), disk(&objects[1])]), "IMG.0123"),
        (json!([{"image_url": objects[1]}]), "IMG.0055"),
        (
            json!([{"image_url": objects[1], "min_disk": 2049}]),
            "IMG.0055",
        ),
        (
            json!([{"image_url": objects[1], "min_disk": 1, "tags": ["a b"]}]),
            "IMG.0115",
        ),
        (
            json!([{"image_url": objects[1], "min_disk": 1, "os_type": "Windows"}]),
            "IMG.0122",
        ),
        (eight, "IMG.0194"),
    ] {
        let body = json!({"data_images": disks, "os_version": "CentOS 7.2 64bit"});
        let answer = client.import_at(V2, &objects[0], body);
        assert_eq!(answer.status, 400, "{disks}: {answer}");
        answer.refused(400, code);
    }
    assert_eq!(client.state(), before);
}

#[test]
fn the_disks_of_one_request_count_as_one_import_and_as_so_many_images() {
    let text = format!("{}concurrent_imports = 1\n", config::limits(3, 5));
    let server = Server::start(Options::config(text));
    let client = server.user();
    let objects = four(&server);
    let disk = |n: usize| json!({"image_url": objects[n], "min_disk": 40});
    let three = json!([disk(1), disk(2), disk(3)]);
    client
        .import(&objects[0], json!({"data_images": three}))
        .refused(400, "IMG.0015");
    assert!(client.list().is_empty());
    let two = json!({"data_images": [disk(1), disk(2)]});
    let job = client.begin_import(&objects[0], two);
    assert_eq!(client.job(&job).status(), "SUCCESS");
    assert_eq!(client.list().len(), 3);
    server.verify();
}

#[test]
fn a_request_with_an_idempotency_key_makes_its_images_once() {
    let server = Server::with_defaults();
    let client = server.user();
    let objects = four(&server);
    let ask = || {
        let disks = json!([{"image_url": objects[1], "min_disk": 40}]);
        let body =
            json!({"name": "n", "image_url": objects[0], "min_disk": 40, "data_images": disks});
        let request = client
            .request(reqwest::Method::POST, V2)
            .header("Idempotency-Key", "once")
            .header("Content-Type", "application/json")
            .body(body.to_string());
        client::send(request).expect(200).json()
    };
    let first = ask();
    assert_eq!(ask(), first);
    client.job(&client::text(&first["job_id"]));
    assert_eq!(client.list().len(), 2);
}

/// Large enough to be met on their way, of zeros and so of few bytes in the store.
const LARGE: u64 = 4 << 30;

/// A server whose buckets are below a directory, where holes take no room.
fn with_large_objects(text: &str) -> Server {
    let buckets = config::DIRECTORY_OF_BUCKETS;
    Server::start(Options::config(format!("{text}{buckets}")))
}

fn begin_large(server: &Server, client: &Client, large: u64) -> String {
    let small = server.put_object("small", Content::new(1, 5000));
    let first = server.put_sparse_object("first", large);
    let second = server.put_sparse_object("second", large);
    client.begin_import(
        &small,
        json!({"data_images": [
            {"image_url": first, "min_disk": 40}, {"image_url": second, "min_disk": 40},
        ]}),
    )
}

#[test]
fn with_a_cancelled_job_go_the_disks_that_are_on_their_way() {
    let server = with_large_objects(&config::deletion_grace(0));
    let client = server.user();
    let job = begin_large(&server, &client, LARGE);
    let path = format!("/v1/{}/jobs/{job}", client.project());
    let shown = || client.get(&path).expect(200).json();
    until("the first to be there and bytes of others", || {
        let job = shown();
        let there = parts(&job)[0]["status"] == "SUCCESS";
        let done = job["calotype"]["bytes_done"].as_u64();
        (there && done > Some(5000)).then_some(())
    });
    assert_eq!(shown()["status"], "RUNNING");
    client.delete(&format!("/admin/v1/jobs/{job}")).expect(202);
    let ended = client.job(&job).document;
    assert_eq!(ended["status"], "FAIL", "{ended}");
    assert_eq!(ended["error_code"], "IMG.0014");
    assert_eq!(client.list().len(), 1);
    let again = client.delete(&format!("/admin/v1/jobs/{job}"));
    assert_eq!(again.status, 409, "{again}");
    until("what was staged to go", || {
        (server.staged() == 0).then_some(())
    });
    server.verify();
}

#[test]
fn an_import_of_several_disks_whose_server_is_killed_is_made_by_the_next() {
    let mut server = with_large_objects(&config::jobs(4, 5));
    let client = server.user();
    let length = 300 << 20;
    let job = begin_large(&server, &client, length);
    for _ in 0..3 {
        server.restart();
        server.verify();
    }
    let client = client.at(server.base());
    let ended = client.job(&job).document;
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    for (part, size) in parts(&ended).iter().zip([5000, length, length]) {
        assert_eq!(client.show(&image_of(part))["size"], size);
    }
    assert_eq!(client.list().len(), 3);
    server.verify();
}
