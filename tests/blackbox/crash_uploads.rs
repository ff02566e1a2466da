//! Killed at any instant of an upload, the server comes back at once with the image active and whole, or
//! queued and ready for its bytes again, and with nothing of the attempt in the store.
//!
//! The instants are spread over the whole upload and a little beyond, so that they fall also between the
//! store's rename and the catalog's commit. `CALOTYPE_CRASHES` sets how many kills there are,
//! `CALOTYPE_SEED` which; the seed is printed.

use std::time::{Duration, Instant};

use calotype_tests::content::next;
use calotype_tests::{Client, Content, Digests, Server};

use crate::crash::number;

/// Bytes of plaintext in a segment.
const SEGMENT: u64 = 64 << 20;

#[test]
fn a_small_upload_that_is_killed_is_whole_or_can_be_made_again() {
    let mut killed = Killed::new(number("CALOTYPE_CRASHES").unwrap_or(100));
    let lengths = [1, 4096, 65_535, 65_536, 65_537, 300_000, 1 << 20, 3_333_333];
    let kills = killed.kills;
    for kill in 0..kills {
        let length = lengths[kill as usize % lengths.len()];
        killed.upload(Content::bytes(kill, length));
    }
    killed.end();
}

#[test]
fn an_upload_of_several_segments_that_is_killed_is_whole_or_can_be_made_again() {
    let mut killed = Killed::new(number("CALOTYPE_CRASHES").map_or(24, |kills| kills.div_ceil(8)));
    let kills = killed.kills;
    // One ends at a segment's end, one ends a byte after it, and one in the middle of the third.
    let lengths = [SEGMENT, SEGMENT + 1, 2 * SEGMENT + 12_345];
    let longest = Content::bytes(1, lengths[2]);
    for kill in 0..kills {
        let length = usize::try_from(lengths[kill as usize % lengths.len()]).expect("it fits");
        killed.upload(longest[..length].to_vec());
    }
    killed.end();
}

/// A server that is killed during uploads.
struct Killed {
    server: Server,
    client: Client,
    admin: Client,
    kills: u64,
    seed: u64,
    acknowledged: u64,
    committed: u64,
    lost: u64,
}

impl Killed {
    fn new(kills: u64) -> Self {
        let seed = number("CALOTYPE_SEED").unwrap_or(20_261_124);
        println!("CALOTYPE_SEED={seed}, {kills} kills");
        let server = Server::with_defaults();
        Self {
            client: server.user(),
            admin: server.admin(),
            server,
            kills,
            seed,
            acknowledged: 0,
            committed: 0,
            lost: 0,
        }
    }

    /// Uploads once without a kill, to know how long that takes, and once with one.
    fn upload(&mut self, content: Vec<u8>) {
        let wanted = Digests::of(content.as_slice());
        let begin = Instant::now();
        self.again(content.clone(), &wanted);
        let whole = u64::try_from(begin.elapsed().as_micros()).expect("less than a year");
        let delay = Duration::from_micros(next(&mut self.seed) % whole.max(1));

        let image = self.client.create("killed");
        let uploader = {
            let (client, image) = (self.client.clone(), image.clone());
            let content = content.clone();
            std::thread::spawn(move || {
                let length = content.len() as u64;
                client.upload_stream(&image, std::io::Cursor::new(content), length)
            })
        };
        std::thread::sleep(delay);
        self.server.kill9();
        let answer = uploader.join().expect("the uploader");
        self.restart();

        let status = self.client.show(&image)["status"].clone();
        match answer {
            Ok(answer) => {
                answer.expect(204);
                assert_eq!(status, "active", "acknowledged");
                self.acknowledged += 1;
            }
            Err(_) if status == "active" => self.committed += 1,
            Err(_) => self.lost += 1,
        }
        if status == "active" {
            assert_eq!(self.client.download(&image), wanted);
        } else {
            assert_eq!(status, "queued", "not saving: its writer is dead");
            self.client.upload(&image, content).expect(204);
            assert_eq!(self.client.download(&image), wanted);
        }
        self.client
            .delete(&format!("/v2/images/{image}"))
            .expect(204);
    }

    fn again(&self, content: Vec<u8>, wanted: &Digests) {
        let image = self.client.create("whole");
        self.client.upload(&image, content).expect(204);
        assert_eq!(
            self.client.show(&image)["os_hash_value"],
            wanted.sha512.as_str()
        );
        self.client
            .delete(&format!("/v2/images/{image}"))
            .expect(204);
    }

    fn restart(&mut self) {
        self.server.restart();
        // Tokens outlive the process; its address does not.
        self.client = self.client.at(self.server.base());
        self.admin = self.admin.at(self.server.base());
        assert_eq!(self.server.staged(), 0, "nothing unfinished stays");
        self.admin.verify_rows();
    }

    fn end(mut self) {
        println!(
            "{} acknowledged, {} committed and not acknowledged, {} lost",
            self.acknowledged, self.committed, self.lost
        );
        assert!(
            self.lost > 0,
            "no kill fell into an upload: nothing was tested"
        );
        assert!(self.client.list().is_empty());
        self.server.verify_stopped();
    }
}
