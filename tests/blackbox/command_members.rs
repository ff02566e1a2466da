//! Sharing images by command, and answering to it.

use calotype_tests::Server;

use crate::command::{FORMATS, Terminal, exit};

/// What a command exits with whose job has failed.
const JOB_FAILED: i32 = 6;

#[test]
fn images_are_shared_answered_to_and_taken_back_by_command() {
    let server = Server::with_defaults();
    let (owner, recipient) = (server.user(), server.admin());
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        let other = Terminal::new(&server, "calotype-admin", format);
        let name = format!("golden-{format}");
        let image = owner.image(&name, 1, 1000);
        let share = ["image", "share", &name, "--project", recipient.project()];
        let begun = user.ok(&share);
        let job = begun.field("job_id");
        user.ok(&["job", "wait", &job]);
        let accept = ["image", "accept", &image, "--wait"];
        let told = other.ok(&accept);
        assert_eq!(told.list("status", "success"), (1, true));
        assert_eq!(told.list("image_id", &image), (1, true));
        let members = user.ok(&["image", "members", &name]);
        assert_eq!(members.list("status", "accepted"), (1, true));
        assert_eq!(members.list("member_id", recipient.project()), (1, true));
        other.ok(&["image", "reject", &image, "--wait"]);
        let members = user.ok(&["image", "members", &name]);
        assert_eq!(members.list("status", "rejected"), (1, true));
        let unshare = [
            "image",
            "unshare",
            &name,
            "--project",
            recipient.project(),
            "--wait",
        ];
        user.ok(&unshare);
        assert_eq!(owner.show(&image)["visibility"], "private");
        let said = user.fails(&unshare, JOB_FAILED);
        assert!(
            said.contains("IMG.0113") && said.contains("job show"),
            "{said}"
        );
        user.fails(
            &["image", "share", "no-such", "--project", "p"],
            exit::NOT_FOUND,
        );
        user.fails(
            &["image", "share", &name, "--project", "a b"],
            exit::REFUSED,
        );
    }
}
