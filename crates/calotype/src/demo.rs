//! `calotype demo`: the whole way of an image, on a real disk, in one process, measured.
//!
//! Starts the service on defaults in a directory of its own, makes a disk image, uploads it,
//! replicates it, fetches the replica and compares every byte. Guarantees: it ends by itself; the
//! first step that fails is named; the directory is removed at every end but the process's own
//! sudden death, also on Ctrl-C.

mod disk;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use sha2::Sha512;

use crate::cli::DemoArgs;
use crate::client::{JobWait, RetryPolicy, Session, Target, Upload};
use crate::clouds::{self, Choice};
use crate::config::{Config, Environment};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Rows, cell};
use crate::serve::{self, ServeOptions};

/// The digests of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileDigests {
    /// In hexadecimal.
    pub(crate) md5: String,
    /// In hexadecimal.
    pub(crate) sha512: String,
}

/// A step that was done.
#[derive(Debug, Clone, Copy)]
struct Step {
    name: &'static str,
    took: Duration,
    bytes: u64,
}

/// Runs the demo.
pub(crate) async fn run(args: DemoArgs, output: &Output) -> Result<(), Failure> {
    let size = args.size.0.bytes();
    if !(disk::LEAST..=disk::MOST).contains(&size) {
        return Err(Failure::usage("--size must be between 64 MiB and 1 TiB"));
    }
    let mut place = tempfile::Builder::new();
    place.prefix("calotype-demo-");
    let place = match &args.dir {
        Some(directory) => place.tempdir_in(directory),
        None => place.tempdir(),
    }
    .map_err(|error| Failure::new(format!("no directory for the demo: {error}")))?;
    let stopped = stop_signal();
    tokio::pin!(stopped);
    let mut running = None;
    let outcome = tokio::select! {
        outcome = Box::pin(show(&args, place.path(), &mut running, output)) => outcome,
        () = &mut stopped => Err(interrupted()),
    };
    if let (Ok(()), true, Some(service)) = (&outcome, args.keep, &running) {
        output.note(&reach(service));
        stopped.await;
    }
    let ended = match running {
        Some(service) => service
            .stop(std::future::pending())
            .await
            .map_err(|failure| failure.during("stop")),
        None => Ok(()),
    };
    let path = place.path().to_owned();
    // A file that an interrupted step made meanwhile is found the second time.
    let removed = place
        .close()
        .or_else(|_| std::fs::remove_dir_all(&path))
        .map_err(|error| Failure::new(format!("clean-up: {}: {error}", path.display())));
    outcome.and(ended).and(removed)
}

async fn show(
    args: &DemoArgs,
    place: &Path,
    running: &mut Option<serve::Running>,
    output: &Output,
) -> Result<(), Failure> {
    let mut config = Config::default();
    // Any free port: the demo runs beside a service.
    config.server.listen.set_port(0);
    let data_dir = place.join("calotype-data");
    let options = ServeOptions::new(data_dir, config, &Environment::default())?;
    let began = Instant::now();
    let service = running.insert(
        serve::start(options)
            .await
            .map_err(|failure| failure.during("start the service"))?,
    );
    let start = Step {
        name: "start the service",
        took: began.elapsed(),
        bytes: 0,
    };
    let steps = walk(&service.clouds_yaml, args.size.0.bytes(), place, output).await?;
    report(&[&[start], steps.as_slice()].concat(), output)
}

/// The steps against a service that runs.
async fn walk(
    clouds_yaml: &Path,
    size: u64,
    place: &Path,
    output: &Output,
) -> Result<Vec<Step>, Failure> {
    let path = clouds_yaml.to_string_lossy().into_owned();
    let environment = Environment::from([("OS_CLIENT_CONFIG_FILE", path.as_str())]);
    let cloud = clouds::find(
        &Choice {
            cloud: Some("calotype"),
        },
        &environment,
        place,
    )?;
    let mut steps = Vec::new();
    let [original, copied, fetched] =
        ["disk.raw", "cp.raw", "replica.raw"].map(|name| place.join(name));

    let step = "make a disk image";
    output.note("making a disk image: GPT, FAT32, files");
    let (making, began) = (original.clone(), Instant::now());
    blocking(step, move || disk::make(&making, size)).await?;
    steps.push(Step {
        name: step,
        took: began.elapsed(),
        bytes: size,
    });

    // Twice: the first one warms the page cache for itself and for the upload alike.
    let step = "cp and fsync, for comparison";
    for _ in 0..2 {
        let (from, to) = (original.clone(), copied.clone());
        let took = blocking(step, move || measure_copy(&from, &to)).await?;
        steps.retain(|done: &Step| done.name != step);
        steps.push(Step {
            name: step,
            took,
            bytes: size,
        });
    }
    std::fs::remove_file(&copied)?;

    let during = |step: &'static str| move |failure: Failure| failure.during(step);
    let session = Session::open(cloud, RetryPolicy::default())
        .await
        .map_err(during("log in"))?;
    let step = "upload";
    let began = Instant::now();
    let new = json!({"name": "demo", "disk_format": "raw", "container_format": "bare"});
    let image = session.create_image(&new).await.map_err(during(step))?;
    let id = cell(&image, "id");
    let bar = output.bytes_bar(step, Some(size));
    let sent = session
        .upload(&id, &Upload::File(original.clone()), &bar)
        .await;
    bar.finish_and_clear();
    sent.map_err(during(step))?;
    steps.push(Step {
        name: step,
        took: began.elapsed(),
        bytes: size,
    });

    let step = "replicate";
    let began = Instant::now();
    let request = json!({"name": "demo-replica"});
    let job = session
        .replicate(&id, &request)
        .await
        .map_err(during(step))?;
    let bar = output.bytes_bar(step, Some(size));
    let wait = JobWait {
        first_look: Duration::from_millis(5),
        ..JobWait::default()
    };
    let ended = session.wait_job(&job, wait, &bar).await;
    bar.finish_and_clear();
    let ended = ended.map_err(during(step))?;
    steps.push(Step {
        name: step,
        took: began.elapsed(),
        bytes: size,
    });

    let step = "download the replica";
    let began = Instant::now();
    let replica = cell(&ended["entities"], "image_id");
    let replica = session.show_image(&replica).await.map_err(during(step))?;
    let bar = output.bytes_bar("download", Some(size));
    let got = session
        .download(&replica, &Target::File(fetched.clone()), &bar)
        .await;
    bar.finish_and_clear();
    got.map_err(during(step))?;
    steps.push(Step {
        name: step,
        took: began.elapsed(),
        bytes: size,
    });

    let step = "compare every byte";
    let began = Instant::now();
    blocking(step, move || compare(&original, &fetched, &replica)).await?;
    steps.push(Step {
        name: step,
        took: began.elapsed(),
        bytes: size,
    });
    Ok(steps)
}

async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(error.to_string()))
        .flatten()
        .map_err(|failure| failure.during(step))
}

fn measure_copy(from: &Path, to: &Path) -> Result<Duration, Failure> {
    let began = Instant::now();
    std::fs::copy(from, to)?;
    File::open(to)?.sync_all()?;
    Ok(began.elapsed())
}

/// Compares the replica with the original, and both with the digests that the service gave.
fn compare(original: &Path, fetched: &Path, replica: &Value) -> Result<(), Failure> {
    let differ = |what: &str| {
        Err(Failure::new(format!("the replica differs: {what}")).with_exit(Exit::Damaged))
    };
    if original.metadata()?.len() != fetched.metadata()?.len() {
        return differ("its length");
    }
    let mut one = BufReader::with_capacity(1 << 20, File::open(original)?);
    let mut two = BufReader::with_capacity(1 << 20, File::open(fetched)?);
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut place = 0_u64;
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            break;
        }
        two.read_exact(&mut right[..read])?;
        if left[..read] != right[..read] {
            return differ(&format!("within 64 KiB of byte {place}"));
        }
        place += read as u64;
    }
    let digests = digests_of(original)?;
    if digests_of(fetched)? != digests {
        return differ("its digests");
    }
    for (name, value) in [
        ("checksum", &digests.md5),
        ("os_hash_value", &digests.sha512),
    ] {
        if replica[name] != **value {
            return differ(&format!("the service's {name}"));
        }
    }
    Ok(())
}

/// The digests of the file at `path`.
///
/// # Errors
/// What the file system says.
pub(crate) fn digests_of(path: &Path) -> Result<FileDigests, Failure> {
    let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(named)?;
    let mut md5 = Md5::new();
    let mut sha512 = Sha512::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(named)?;
        if read == 0 {
            break;
        }
        md5.update(&buffer[..read]);
        sha512.update(&buffer[..read]);
    }
    Ok(FileDigests {
        md5: hex::encode(md5.finalize()),
        sha512: hex::encode(sha512.finalize()),
    })
}

fn report(steps: &[Step], output: &Output) -> Result<(), Failure> {
    let copy = steps
        .iter()
        .find(|step| step.name.starts_with("cp"))
        .map(|step| step.took);
    let document: Vec<Value> = steps
        .iter()
        .map(|step| {
            json!({
                "step": step.name,
                "seconds": step.took.as_secs_f64(),
                "bytes": step.bytes,
                "bytes_per_second": rate(*step),
                "times_cp": times(*step, copy),
            })
        })
        .collect();
    output.result(&Value::Array(document), |_| {
        let mut rows = Rows::new(&["STEP", "SECONDS", "MB/S", "TIMES CP"]).numeric(&[1, 2, 3]);
        for step in steps {
            rows.push([
                step.name.to_owned(),
                format!("{:.3}", step.took.as_secs_f64()),
                rate(*step)
                    .map(|rate| format!("{:.0}", rate / 1e6))
                    .unwrap_or_default(),
                times(*step, copy)
                    .map(|times| format!("{times:.2}"))
                    .unwrap_or_default(),
            ]);
        }
        rows
    })?;
    output.note("every byte of the replica is the original's; md5 and sha512 match");
    Ok(())
}

/// Bytes per second.
fn rate(step: Step) -> Option<f64> {
    let seconds = step.took.as_secs_f64();
    (step.bytes > 0 && seconds > 0.0).then(|| step.bytes as f64 / seconds)
}

/// The step's time by the time of `cp`.
fn times(step: Step, copy: Option<Duration>) -> Option<f64> {
    let copy = copy?.as_secs_f64();
    (step.bytes > 0 && copy > 0.0).then(|| step.took.as_secs_f64() / copy)
}

fn reach(service: &serve::Running) -> String {
    format!(
        "the service runs on http://{} until Ctrl-C; reach it with\n  \
         export OS_CLIENT_CONFIG_FILE=\"{}\" OS_CLOUD=calotype\n  calotype image list",
        service.address,
        service.clouds_yaml.display()
    )
}

fn interrupted() -> Failure {
    Failure::new("interrupted").with_exit(Exit::Interrupted)
}

/// Returns at the first Ctrl-C or SIGTERM.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate());
    let terminated = async {
        match &mut terminate {
            Ok(signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

#[cfg(test)]
mod tests;
