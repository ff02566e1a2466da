//! The IMS API's list by each of its parameters, at a hundred thousand images.

use std::time::Duration;

use calotype_tests::Client;
use serde_json::Value;

use crate::lists::{CONNECTIONS, load, load_on};
use crate::report::{Report, quantile, time_text};
use crate::wire::Wire;

const LOAD: Duration = Duration::from_secs(3);
/// For pages that take long: what is not known yet at the beginning is to be little of it.
const LONG: Duration = Duration::from_secs(10);
/// The last microsecond that may be; and what nobody has.
const NOBODY: &str = "11111111-2222-4333-8444-555555555555";

/// Each parameter with values that all images have, that few have, and that none has.
fn parameters(client: &Client, id: &str) -> Vec<(&'static str, Vec<String>)> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut all: Vec<(&str, Vec<String>)> = vec![
        ("__isregistered", words(&["true"])),
        ("__imagetype", words(&["private", "shared", "gold"])),
        ("__whole_image", words(&["false", "true"])),
        ("__system__cmkid", words(&[NOBODY])),
        ("protected", words(&["false", "true"])),
        ("visibility", words(&["shared", "private", "public"])),
        ("owner", vec![client.project().to_owned()]),
        ("id", vec![id.to_owned()]),
        ("status", words(&["queued", "active"])),
        ("name", words(&["image-000500", "nothing"])),
        ("container_format", words(&["bare", "ovf", "ova"])),
        ("disk_format", words(&["raw", "qcow2", "vmdk"])),
        ("min_ram", words(&["0", "512", "7"])),
        ("min_disk", words(&["0", "40", "7"])),
        ("__os_bit", words(&["64", "32"])),
        ("__os_type", words(&["Linux", "Windows"])),
        ("__platform", words(&["CentOS", "SUSE"])),
        ("tag", words(&["tenth", "nothing"])),
        ("member_status", words(&["accepted", "pending"])),
        ("virtual_env_type", words(&["FusionCompute", "DataImage"])),
        ("enterprise_project_id", words(&["0", NOBODY])),
        ("__support_xen_gpu_type", words(&["M60_vGPU"])),
        ("__support_kvm_gpu_type", words(&["P100"])),
        ("marker", vec![id.to_owned()]),
        ("limit", words(&["25"])),
        (
            "sort_key",
            words(&[
                "name",
                "container_format",
                "disk_format",
                "status",
                "id",
                "size",
                "created_at",
            ]),
        ),
        ("sort_dir", words(&["asc", "desc"])),
    ];
    for name in [
        "__support_kvm",
        "__support_xen",
        "__support_largememory",
        "__support_diskintensive",
        "__support_highperformance",
        "__support_xen_hana",
        "__support_kvm_infiniband",
    ] {
        all.push((name, words(&["true"])));
    }
    for name in ["created_at", "updated_at"] {
        let bounds = ["gte:2020-01-01T00:00:00Z", "lt:2020-01-01T00:00:00Z"];
        all.push((
            name,
            words(&[bounds[0], bounds[1], "gt:2100-01-01T00:00:00Z"]),
        ));
    }
    all
}

/// Loads the server with one filter after the other. A parameter counts with the slowest of its values.
pub(crate) fn measure(report: &mut Report, client: &Client, id: &str) {
    let mut slowest: Vec<(Duration, String)> = Vec::new();
    for (name, values) in parameters(client, id) {
        let tails = values.iter().map(|value| {
            let page = if name == "limit" { "" } else { "limit=25&" };
            let path = format!("/v2/cloudimages?{page}{name}={value}");
            let mut times = load(client, &path, LOAD);
            let tail = quantile(&mut times, 0.99);
            eprintln!("    {name}={value}: p99 {}", time_text(tail));
            (tail, format!("{name}={value}"))
        });
        slowest.extend(tails.max());
    }
    slowest.sort_unstable_by(|one, other| other.cmp(one));
    let count = slowest.len();
    let what =
        format!("GET /v2/cloudimages, page of 25 by one of {count} parameters, 32 connections");
    let (tail, name) = &slowest[0];
    report.alone(
        &format!("{what}: the slowest"),
        format!("p99 {} (`{name}`)", time_text(*tail)),
    );
    let each: Vec<String> = slowest
        .iter()
        .map(|(tail, name)| format!("`{name}` {}", time_text(*tail)))
        .collect();
    report.alone(&format!("{what}: p99 of each"), each.join(", "));
    let first = ["/v2/cloudimages".to_owned()];
    for (what, paths) in [
        ("the first one", first.as_slice()),
        ("at 200 places", &places(client)),
    ] {
        let mut times = load_on(std::slice::from_ref(client), CONNECTIONS, paths, LONG);
        let (median, tail) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
        report.alone(
            &format!(
                "GET /v2/cloudimages, a page of 500 as without a limit, {what}, 32 connections"
            ),
            format!("p50 {}, p99 {}", time_text(median), time_text(tail)),
        );
    }
}

/// All pages of the list, as who goes through it asks for them.
fn places(client: &Client) -> Vec<String> {
    let mut wire = Wire::open(client);
    let mut paths = vec!["/v2/cloudimages".to_owned()];
    while paths.len() < 200 {
        let page = wire.get(&paths[paths.len() - 1]);
        let page: Value = serde_json::from_slice(page).expect("JSON");
        let images = page["images"].as_array().expect("images");
        let last = images[images.len() - 1]["id"].as_str().expect("an id");
        paths.push(format!("/v2/cloudimages?marker={last}"));
    }
    paths
}
