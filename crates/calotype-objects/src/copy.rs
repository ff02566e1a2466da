//! A file's bytes into an object.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use calotype_core::id::JobId;
use calotype_core::object::ObjectAddress;
use calotype_core::ports::{ObjectFacts, Objects};
use calotype_core::size::ByteSize;
use calotype_core::{Error, Result};
use tokio::task::spawn_blocking;

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Writes all that is in a file as an object that is not there. While a piece is sent, the next is read.
pub(crate) async fn copy_in(
    objects: &dyn Objects,
    at: &ObjectAddress,
    file: Arc<File>,
    job: Option<&JobId>,
) -> Result<ObjectFacts> {
    let size = file.metadata().map_err(Error::internal)?.len();
    let mut writer = objects.create(at, ByteSize::new(size), job).await?;
    let mut next = piece_at(Arc::clone(&file), 0);
    let mut from = 0;
    loop {
        let piece = next.await.map_err(Error::internal)?;
        let piece = piece.map_err(Error::internal)?;
        if piece.is_empty() {
            return writer.finish().await;
        }
        from += piece.len() as u64;
        next = piece_at(Arc::clone(&file), from);
        writer.append(piece).await?;
    }
}

fn piece_at(file: Arc<File>, from: u64) -> tokio::task::JoinHandle<io::Result<Bytes>> {
    spawn_blocking(move || {
        let mut piece = Vec::with_capacity(PIECE);
        let rest = At { file: &file, from };
        rest.take(PIECE as u64).read_to_end(&mut piece)?;
        Ok(Bytes::from(piece))
    })
}

/// A file from a place on. Its own position is left alone.
struct At<'a> {
    file: &'a File,
    from: u64,
}

impl io::Read for At<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.from)?;
        self.from += read as u64;
        Ok(read)
    }
}
