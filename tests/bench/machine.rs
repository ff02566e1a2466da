//! What the numbers were measured on.

use std::path::Path;
use std::process::Command;

/// The machine, in lines of a name and a value.
pub(crate) fn describe() -> Vec<(&'static str, String)> {
    let directory = std::env::temp_dir();
    let directory = directory.to_string_lossy();
    let disk = said("df", &["--output=source,fstype", &directory]);
    let (year, rest) = ("+%Y-%m-%d", "rev-parse");
    vec![
        ("date", said("date", &["-u", year])),
        ("commit", said("git", &[rest, "--short", "HEAD"])),
        ("processor", field("/proc/cpuinfo", "model name")),
        ("cores", said("nproc", &[])),
        ("memory", field("/proc/meminfo", "MemTotal")),
        // Of a minute, five and fifteen. The run makes about three itself; more is the work of others.
        (
            "load at the end",
            std::fs::read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .split(' ')
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        ("kernel", said("uname", &["-sr"])),
        (
            "disk",
            disk.lines().last().unwrap_or_default().trim().to_owned(),
        ),
    ]
}

/// A field of `/proc/PID/status`, in bytes.
pub(crate) fn process_bytes(pid: u32, name: &str) -> u64 {
    let text = field(&format!("/proc/{pid}/status"), name);
    let kibibytes: u64 = text
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .expect("a number of kB");
    kibibytes * 1024
}

fn field(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(Path::new(file)).unwrap_or_default();
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    });
    value.unwrap_or_default()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
