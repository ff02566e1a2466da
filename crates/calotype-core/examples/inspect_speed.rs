//! Times the inspection of a file's bytes, as they come in an upload, and prints the best of three in seconds:
//! `inspect_speed FILE`, whose name is its disk format. `cargo xtask bench` runs it.

#![expect(clippy::print_stdout, reason = "the figure is what it is for")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use calotype_core::inspect::Inspector;

/// Bytes that come at once: as few as an upload has, because each piece costs something.
const PIECE: usize = 16 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let file = file.ok_or("no file is named")?;
    let format = file.file_name().and_then(|name| name.to_str());
    let format = format.ok_or("the file's name is no format")?;
    let bytes = std::fs::read(&file)?;
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let begin = Instant::now();
        let mut inspector = Inspector::new(format, "bare");
        for piece in bytes.chunks(PIECE) {
            inspector.feed(piece).map_err(|error| error.to_string())?;
        }
        std::hint::black_box(inspector.finish().map_err(|error| error.to_string())?);
        best = best.min(begin.elapsed());
    }
    println!("{:.6}", best.as_secs_f64());
    Ok(())
}
