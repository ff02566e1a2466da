//! Inspects mutated images, as many as wanted of each format: `cargo xtask fuzz`.
//!
//! The arguments are the number of executions for each format, the seed, the format (`all` for each), and files to mutate beside
//! the samples, whose extensions name their formats.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

#[path = "../tests/inspect/fuzz.rs"]
mod fuzz;
#[path = "../tests/inspect/hostile.rs"]
mod hostile;
#[path = "../tests/inspect/samples.rs"]
mod samples;

use std::path::Path;
use std::time::Instant;

use calotype_core::image::DISK_FORMATS;

use samples::Sample;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().unwrap_or_default().parse::<u64>();
    let (executions, seed) = (number()?, number()?);
    let wanted = arguments.next().unwrap_or_default();
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
    let formats = formats.filter(|format| wanted == "all" || wanted == *format);
    let mut any = false;
    for format in formats {
        let samples = of(&all, format);
        if samples.is_empty() {
            continue;
        }
        any = true;
        let begin = Instant::now();
        let done = on_every_core(&samples, seed, executions)?;
        println!(
            "{format:<6} {:>4} samples {:>11} accepted {:>11} refused {:>8} bytes held {:>8.0} a second",
            samples.len(),
            done.accepted,
            done.refused,
            done.memory,
            executions as f64 / begin.elapsed().as_secs_f64()
        );
    }
    match any {
        true => Ok(()),
        false => Err(format!("there are no samples of {wanted:?}").into()),
    }
}

/// The executions of one format, each core with its share of them.
fn on_every_core(
    samples: &[&Sample],
    seed: u64,
    executions: u64,
) -> Result<fuzz::Outcome, Box<dyn std::error::Error>> {
    let cores = std::thread::available_parallelism()?.get() as u64;
    let mut all = fuzz::Outcome::default();
    std::thread::scope(|scope| {
        let share = |core: u64| executions * core / cores;
        let workers: Vec<_> = (0..cores)
            .map(|core| (share(core), share(core + 1)))
            .map(|(from, to)| {
                scope.spawn(move || fuzz::run(samples, seed.wrapping_add(from), to - from))
            })
            .collect();
        for worker in workers {
            let ended = worker.join();
            let done = ended.unwrap_or_else(|_| Err("a thread panicked".to_owned()))?;
            all.accepted += done.accepted;
            all.refused += done.refused;
            all.memory = all.memory.max(done.memory);
        }
        Ok(all)
    })
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
