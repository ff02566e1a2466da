//! Replicas under keys by command: what a person sees of them meanwhile, and how they are ended.

use std::process::Command;

use calotype_tests::server::binary;
use calotype_tests::{Content, Digests, Options, Server, config, until};

use crate::command::{FORMATS, Terminal, exit};

const MIB: u64 = 1 << 20;
/// What a command exits with whose job has failed.
const JOB_FAILED: i32 = 6;

/// A server slow enough for a person to see something.
fn slow() -> Server {
    let slow = Options::config(config::reseal_pace(1 << 40, 16 * MIB, 2));
    Server::start(slow.with_own_keys())
}

/// Runs a command on a terminal of its own; the result is what stood on the screen.
fn on_screen(terminal: &Terminal, arguments: &[&str]) -> String {
    let command = terminal.command(arguments);
    let mut words = vec![binary().display().to_string()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" ")]);
    script.arg("/dev/null").env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            script.env(name, value);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    script.env("PATH", path).env("TERM", "xterm");
    script.current_dir(command.get_current_dir().expect("a directory"));
    let output = script
        .output()
        .expect("script runs: it is a part of Debian");
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{screen}");
    screen
}

#[test]
fn a_replica_under_a_key_is_made_while_the_terminal_shows_bytes_rate_and_time_left() {
    let server = slow();
    let client = server.user();
    let source = client.image("source", 1, 64 * MIB);
    let wanted = Digests::of(Content::new(1, 64 * MIB));
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        let key = user
            .ok(&["keys", "create", &format!("k-{format}")])
            .field("key_id");
        let name = format!("seen-{format}");
        let replicate = [
            "image",
            "replicate",
            &source,
            "--name",
            &name,
            "--key",
            &key,
            "--wait",
        ];
        let screen = on_screen(&user, &replicate);
        let bar = screen.split(['\r', '\n']).find(|line| {
            line.contains("replicating") && line.contains("MiB/64.00 MiB") && line.contains("MiB/s")
        });
        let bar = bar.unwrap_or_else(|| panic!("no bar: {screen:?}"));
        assert!(bar.contains("s left"), "{bar}");
        assert!(screen.contains("SUCCESS"), "{screen}");
        // And where nobody watches, the result alone.
        let made = user.ok(&replicate);
        assert_eq!(made.field("status"), "SUCCESS");
        let image = made.field("image_id");
        assert_eq!(client.show(&image)["__system__cmkid"], key.as_str());
        assert_eq!(client.download(&image), wanted);
    }
}

#[test]
fn a_job_is_cancelled_by_command_and_who_waits_for_it_is_told() {
    let server = slow();
    let client = server.user();
    let source = client.image("source", 1, 200 * MIB);
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        let key = client.create_key(&format!("k-{format}"));
        let begun = user.ok(&[
            "image",
            "replicate",
            &source,
            "--name",
            "never",
            "--key",
            &key,
        ]);
        let job = begun.field("job_id");
        until("the job to move", || {
            (client.progress(&job)["bytes_done"].as_u64() > Some(0)).then_some(())
        });
        user.ok(&["job", "cancel", &job]);
        let said = user.fails(&["job", "wait", &job], JOB_FAILED);
        assert!(said.contains("The job was cancelled."), "{said}");
        let shown = user.ok(&["job", "show", &job]);
        assert_eq!(shown.field("status"), "FAIL");
        assert_eq!(shown.field("error_code"), "IMG.0014");
        user.fails(&["job", "cancel", &job], exit::REFUSED);
        assert_eq!(client.list().len(), 1, "nothing is left of it");
    }
}
