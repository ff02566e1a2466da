//! Clients that keep to the protocol, and those that do not.

use std::ops::Range;
use std::sync::Arc;

use calotype_core::disk::DiskFormat;
use calotype_core::ports::{BlobFacts, BlobReader, ByteStream, Extent};
use calotype_core::size::ByteSize;
use futures_util::stream;

use super::*;

const PAGE: u64 = 64 << 10;
const SIZE: u64 = 8 * PAGE;

/// A disk whose odd pages are zeros and known to be; the last page can't be read.
struct Striped(BlobFacts);

impl BlobReader for Striped {
    fn facts(&self) -> &BlobFacts {
        &self.0
    }

    fn read(&self, range: Range<u64>) -> ByteStream {
        let pieces = range.map(|at| (at / PAGE) as u8 + 1).collect::<Vec<u8>>();
        let fault = Error::damaged("a page");
        let piece = match pieces.contains(&7) {
            true => Err(fault),
            false => Ok(Bytes::from(pieces)),
        };
        Box::pin(stream::iter([piece]))
    }

    fn extent(&self, at: u64) -> Extent {
        Extent {
            end: (at / PAGE + 1) * PAGE,
            zeros: at / PAGE % 2 == 1,
        }
    }
}

/// Serves such a disk to a client; what the client made of it, and how the serving ended.
async fn served<T>(client: impl AsyncFnOnce(&mut UnixStream) -> T) -> (T, Result<()>) {
    let size = ByteSize::new(SIZE);
    let facts = BlobFacts {
        size,
        stored: size,
        digests: calotype_core::image::Digests::default(),
    };
    let disk = Verified::inspect(Arc::new(Striped(facts)), DiskFormat::Zvhd2);
    let disk = disk.await;
    let progress = ResealProgress::default();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = async move {
        let made = client(&mut theirs).await;
        drop(theirs);
        made
    };
    match disk {
        Ok(disk) => tokio::join!(client, serve(ours, &disk, &progress)),
        Err(error) => panic!("{error}"),
    }
}

async fn option(socket: &mut UnixStream, option: u32, told: &[u8]) -> (u32, Vec<u8>) {
    let mut sent = b"IHAVEOPT".to_vec();
    sent.extend(option.to_be_bytes());
    sent.extend((told.len() as u32).to_be_bytes());
    sent.extend(told);
    socket.write_all(&sent).await.unwrap();
    reply(socket).await
}

async fn reply(socket: &mut UnixStream) -> (u32, Vec<u8>) {
    socket.read_u64().await.unwrap();
    socket.read_u32().await.unwrap();
    let kind = socket.read_u32().await.unwrap();
    let mut told = vec![0; socket.read_u32().await.unwrap() as usize];
    socket.read_exact(&mut told).await.unwrap();
    (kind, told)
}

/// Greets the server, and begins to ask for blocks.
async fn begun(socket: &mut UnixStream) {
    let mut greeting = [0; 18];
    socket.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
    socket.write_u32(3).await.unwrap();
    assert_eq!(option(socket, 5, &[]).await.0, 1 << 31 | 1, "no TLS");
    assert_eq!(option(socket, 7, &[0; 6]).await.0, 1 << 31 | 3, "too early");
    assert_eq!(option(socket, 8, &[]).await.0, 1);
    let query = [&[0; 4][..], &[0, 0, 0, 1, 0, 0, 0, 15], b"base:allocation"].concat();
    assert_eq!(option(socket, 10, &query).await.0, 4);
    assert_eq!(reply(socket).await.0, 1);
    let (kind, export) = option(socket, 7, &[0; 6]).await;
    assert_eq!((kind, &export[2..10]), (3, &SIZE.to_be_bytes()[..]));
    assert_eq!(export[10..], [0, 3], "it can't be written");
    assert_eq!(reply(socket).await.0, 3);
    assert_eq!(reply(socket).await.0, 1);
}

async fn ask(socket: &mut UnixStream, flags: u16, kind: u16, from: u64, length: u32) {
    let mut sent = REQUEST.to_be_bytes().to_vec();
    sent.extend(flags.to_be_bytes());
    sent.extend(kind.to_be_bytes());
    sent.extend(7_u64.to_be_bytes());
    sent.extend(from.to_be_bytes());
    sent.extend(length.to_be_bytes());
    socket.write_all(&sent).await.unwrap();
}

/// The chunks of an answer: each one's kind and what it holds.
async fn answer(socket: &mut UnixStream) -> Vec<(u16, Vec<u8>)> {
    let mut chunks = Vec::new();
    loop {
        assert_eq!(socket.read_u32().await.unwrap(), REPLY);
        let flags = socket.read_u16().await.unwrap();
        let kind = socket.read_u16().await.unwrap();
        assert_eq!(socket.read_u64().await.unwrap(), 7);
        let mut told = vec![0; socket.read_u32().await.unwrap() as usize];
        socket.read_exact(&mut told).await.unwrap();
        chunks.push((kind, told));
        if flags & DONE != 0 {
            return chunks;
        }
    }
}

#[tokio::test]
async fn pages_are_read_zeros_are_told_and_nothing_else_is_done() {
    let ((), ended) = served(async |socket| {
        begun(socket).await;
        ask(socket, 0, READ, 10, 2 * PAGE as u32).await;
        let chunks = answer(socket).await;
        let kinds: Vec<u16> = chunks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [DATA, HOLE, DATA, NOTHING]);
        assert_eq!(chunks[0].1[..9], [0, 0, 0, 0, 0, 0, 0, 10, 1]);
        assert_eq!(chunks[0].1.len() as u64, 8 + PAGE - 10);
        assert_eq!(chunks[2].1.len(), 8 + 10);
        ask(socket, 0, BLOCK_STATUS, 0, 3 * PAGE as u32).await;
        let (kind, told) = &answer(socket).await[0];
        assert_eq!((*kind, told.len()), (STATUS, 4 + 3 * 8));
        assert_eq!(told[8..12], [0, 0, 0, 0]);
        assert_eq!(told[16..20], [0, 0, 0, 3]);
        ask(socket, ONE_EXTENT, BLOCK_STATUS, 0, 3 * PAGE as u32).await;
        assert_eq!(answer(socket).await[0].1.len(), 4 + 8);
        // Nothing beyond the end, no writing, nothing that is unknown.
        for (kind, from, length) in [
            (READ, SIZE, 1),
            (READ, SIZE - 1, 2),
            (READ, u64::MAX, 2),
            (READ, 0, 0),
            (READ, 0, u32::MAX),
            (BLOCK_STATUS, SIZE, 1),
            (3, 0, 1),
            (4, 0, 512),
            (99, 0, 1),
        ] {
            ask(socket, 0, kind, from, length).await;
            let chunks = answer(socket).await;
            assert_eq!(chunks, [(FAILED, vec![0, 0, 0, 22, 0, 0])]);
        }
        ask(socket, 0, DISCONNECT, 0, 0).await;
    })
    .await;
    ended.unwrap();
}

#[tokio::test]
async fn what_can_not_be_read_is_an_error_of_the_device_and_of_the_serving() {
    let ((), ended) = served(async |socket| {
        begun(socket).await;
        ask(socket, 0, READ, 6 * PAGE, 512).await;
        let chunks = answer(socket).await;
        assert_eq!(chunks, [(FAILED, vec![0, 0, 0, 5, 0, 0])]);
    })
    .await;
    assert_eq!(ended.unwrap_err().kind(), calotype_core::ErrorKind::Damaged);
}

#[tokio::test]
async fn a_client_that_talks_nonsense_is_left() {
    let endless = [&b"\0\0\0\x03IHAVEOPT\0\0\0\x07"[..], &[255; 4]].concat();
    let unknown = [
        &b"\0\0\0\x03"[..],
        &b"IHAVEOPT\0\0\0\x63\0\0\0\0".repeat(100),
    ]
    .concat();
    for nonsense in [
        &b"\0\0\0\0"[..],
        b"\0\0\0\x03GET / HTTP/1.1\r\n\r\n",
        &endless,
        &unknown,
        b"",
    ] {
        let ((), ended) = served(async |socket| {
            socket.write_all(nonsense).await.unwrap();
            socket.shutdown().await.unwrap();
            let mut said = Vec::new();
            // It ends: what was said before does not matter.
            let _ = socket.read_to_end(&mut said).await;
        })
        .await;
        ended.unwrap();
    }
    let ((), ended) = served(async |socket| {
        begun(socket).await;
        socket.write_all(&[0; 28]).await.unwrap();
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said).await;
        assert!(said.is_empty());
    })
    .await;
    ended.unwrap();
}
