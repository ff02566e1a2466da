//! The help pages, and what the grammar takes and refuses.

use clap::CommandFactory;

use super::*;

/// Every page, top down.
fn pages(command: &mut clap::Command, path: &str, out: &mut String) {
    let help = command.render_long_help().to_string();
    let help = help
        .lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n");
    out.push_str(&format!("=== {path}\n{}\n\n", help.trim_end()));
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .filter(|name| name != "help")
        .collect();
    for name in names {
        if let Some(sub) = command.find_subcommand_mut(&name) {
            pages(sub, &format!("{path} {name}"), out);
        }
    }
}

#[test]
fn the_help_pages_are_as_reviewed() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut text = String::new();
    pages(&mut command, "calotype", &mut text);
    insta::assert_snapshot!(text);
}

#[test]
fn the_grammar_has_no_contradictions() {
    Cli::command().debug_assert();
}

#[test]
fn commands_are_read() {
    for line in [
        "calotype serve",
        "calotype serve --data-dir d --listen [::1]:0 --config c.toml",
        "calotype demo --size 64MiB --keep",
        "calotype image create n --file f --disk-format raw --property a=b=c --tag t --protected",
        "calotype image set n --remove-property a --unprotected",
        "calotype image download n --file f --force -o json",
        "calotype image replicate n --name m --wait --timeout 5m --os-cloud c",
        "calotype image delete a b c",
        "calotype image tag add n env=dev web",
        "calotype image tag remove n env web",
        "calotype image tag list",
        "calotype image tag find env=dev env=test web",
        "calotype image tag find --not env=dev --name web",
        "calotype image tag find --untagged --id i",
        "calotype image list --property __os_bit=64 --sort name --ascending",
        "calotype image capture n --server s --whole --vault v --wait --timeout 5m",
        "calotype image replicate n --name m --region r --project-name p --agency a --vault v",
        "calotype image export n b:o --quick",
        "calotype image import n --bucket-object b:o --min-disk 1 --quick",
        "calotype image members n --project p",
        "calotype image deactivate n",
        "calotype image schema members",
        "calotype image versions",
        "calotype admin audit --limit 5 --before 9",
        "calotype image os-versions --tag uefi",
        "calotype image quota",
        "calotype admin quota show p",
        "calotype admin quota set p --images 5 --members default --bytes unlimited",
        "calotype admin quota set p --bytes 500GiB",
        "calotype admin quota reset p",
        "calotype job list --status fail",
        "calotype job wait 0 --timeout 30s",
        "calotype keys create a/b --description d",
        "calotype keys list --state pending-deletion",
        "calotype keys schedule-deletion k --days 7",
        "calotype keys grant k --user u --operation describe-key --operation decrypt-datakey --name n",
        "calotype keys grant k --domain d --operation describe-key",
        "calotype keys revoke-grant k g",
        "calotype admin verify --deep",
        "calotype admin verify --data-dir d",
        "calotype admin root-key rotate",
        "calotype admin adopt-store --data-dir d",
        "calotype admin role grant member --user u --project p",
        "calotype admin access-key create --user u",
        "calotype admin enterprise-project create e",
        "calotype config default",
    ] {
        assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
    }
}

#[test]
fn nonsense_is_a_usage_error() {
    for line in [
        "calotype",
        "calotype demo --size much",
        "calotype image create n --property ab",
        "calotype image replicate n",
        "calotype image tag add n",
        "calotype image tag find",
        "calotype image tag find env --untagged",
        "calotype image list --property __os_bit",
        "calotype image list --protected --unprotected",
        "calotype image list --member-status maybe",
        "calotype image capture n",
        "calotype image replicate n --name m --region r",
        "calotype image replicate n --name m --region r --project-name p --agency a --key k",
        "calotype image export n b:o",
        "calotype image export n b:o --quick --format raw",
        "calotype image schema image-list",
        "calotype image os-versions --tag bios",
        "calotype image set n --protected --unprotected",
        "calotype job list --status DONE",
        "calotype job wait 0 --timeout 5",
        "calotype admin role grant member --user u",
        "calotype keys schedule-deletion k",
        "calotype keys schedule-deletion k --days 6",
        "calotype keys grant k --operation describe-key",
        "calotype keys grant k --user u --domain d --operation describe-key",
        "calotype keys grant k --user u --operation decrypt-data-key",
    ] {
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}
