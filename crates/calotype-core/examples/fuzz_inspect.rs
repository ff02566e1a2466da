//! Inspects mutated images, as many as wanted of each format: `cargo xtask fuzz`.
//!
//! The arguments are the number of executions for each format, the seed, and files to mutate beside the samples, whose extensions
//! name their formats.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

#[path = "../tests/inspect/fuzz.rs"]
mod fuzz;
#[path = "../tests/inspect/hostile.rs"]
mod hostile;
#[path = "../tests/inspect/samples.rs"]
mod samples;

use std::path::Path;
use std::sync::Mutex;

use calotype_core::image::DISK_FORMATS;

use samples::Sample;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().unwrap_or_default().parse::<u64>();
    let (executions, seed) = (number()?, number()?);
    let mut all = samples::good();
    all.extend(hostile::hostile());
    for sample in &all {
        fuzz::check(sample)?;
    }
    for file in arguments {
        let sample = read(Path::new(&file))?;
        fuzz::check(&sample)?;
        all.push(sample);
    }
    println!("{executions} executions for each format, seed {seed}");
    // One panic is one line of the report, not a trace for each thread.
    std::panic::set_hook(Box::new(|panic| println!("{panic}")));
    let formats = DISK_FORMATS.iter().copied().chain(["ova"]);
    let formats: Vec<_> = formats
        .filter(|format| !of(&all, format).is_empty())
        .collect();
    let left = Mutex::new(formats);
    let next = || left.lock().ok().and_then(|mut left| left.pop());
    let work = || -> Result<(), String> {
        while let Some(format) = next() {
            let samples = of(&all, format);
            let done = fuzz::run(&samples, seed, executions)?;
            println!(
                "{format:<6} {:>4} samples {:>11} accepted {:>11} refused {:>8} bytes held",
                samples.len(),
                done.accepted,
                done.refused,
                done.memory
            );
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            let ended = worker.join();
            ended.unwrap_or_else(|_| Err("a thread panicked".to_owned()))
        })
    })?;
    Ok(())
}

/// The samples that are declared as a format, or in the container of that name.
fn of<'a>(all: &'a [Sample], format: &str) -> Vec<&'a Sample> {
    let is_of = |sample: &&Sample| match sample.container {
        "ova" => format == "ova",
        _ => sample.format == format,
    };
    all.iter().filter(is_of).collect()
}

fn read(file: &Path) -> Outcome<Sample> {
    let extension = file.extension().and_then(|extension| extension.to_str());
    let format = DISK_FORMATS
        .iter()
        .find(|format| Some(**format) == extension);
    let format = format.ok_or_else(|| format!("{}: no format's name", file.display()))?;
    Ok(samples::sample(
        "a file",
        format,
        std::fs::read(file)?,
        Ok(None),
    ))
}
