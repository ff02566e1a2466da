//! `calotype demo`: the whole way of an image, on a real disk, in one process, measured.
//!
//! Starts the service on defaults in a directory of its own, makes a disk image, uploads it, replicates it plain and
//! under a key, fetches the replicas and compares every byte. Guarantees: it ends by itself; the
//! first step that fails is named; the directory is removed at every end but the process's own
//! sudden death, also on Ctrl-C.

mod disk;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use sha2::{Sha256, Sha512};

use crate::cli::DemoArgs;
use crate::client::{JobWait, RetryPolicy, Session, Target, Upload};
use crate::clouds::{self, Choice};
use crate::config::{Config, Environment};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Rows, cell};
use crate::serve::{self, ServeOptions, Termination};
use crate::system::keep_memory_private;

/// The digests of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileDigests {
    /// In hexadecimal.
    pub(crate) md5: String,
    /// In hexadecimal.
    pub(crate) sha256: String,
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
    keep_memory_private();
    // From here on an interruption removes what the demo makes.
    let mut termination = Termination::listen()?;
    let mut place = tempfile::Builder::new();
    place.prefix("calotype-demo-");
    let place = match &args.dir {
        Some(directory) => place.tempdir_in(directory),
        None => place.tempdir(),
    }
    .map_err(|error| Failure::new(format!("no directory for the demo: {error}")))?;
    let mut running = None;
    let outcome = tokio::select! {
        outcome = Box::pin(show(&args, place.path(), &mut running, output)) => outcome,
        () = termination.asked() => Err(interrupted()),
    };
    if let (Ok(()), true, Some(service)) = (&outcome, args.keep, &running) {
        output.note(&reach(service));
        termination.asked().await;
    }
    let ended = match running {
        Some(service) => service
            .stop(termination.asked())
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
    let [original, copied, plain, sealed] =
        ["disk.raw", "cp.raw", "replica.raw", "encrypted.raw"].map(|name| place.join(name));
    let mut done = Done {
        size,
        steps: Vec::new(),
    };

    output.note("making a disk image: GPT, FAT32, files");
    let making = original.clone();
    let make = blocking(move || disk::make(&making, size));
    done.step("make a disk image", make).await?;

    // Twice: the first one warms the page cache for itself and for the upload alike.
    for warm in [false, true] {
        let (from, to) = (original.clone(), copied.clone());
        let copy = blocking(move || copy(&from, &to));
        done.step(COPY, copy).await?;
        if !warm {
            done.steps.pop();
        }
        std::fs::remove_file(&copied)?;
    }

    let session = Session::open(cloud, RetryPolicy::default())
        .await
        .map_err(|failure| failure.during("log in"))?;
    let image = upload(&session, &original, size, output);
    let image = done.step("upload", image).await?;

    let request = json!({"name": "demo-replica"});
    let replica = replicate(&session, &image, &request, size, output);
    let replica = done.step("replicate", replica).await?;
    let fetched = download(&session, &replica, &plain, size, output);
    let replica = done.step("download the replica", fetched).await?;
    let (one, two) = (original.clone(), plain);
    let compared = blocking(move || compare(&one, &two, &replica));
    done.step("compare every byte", compared).await?;

    let alias = json!({"key_alias": "demo"});
    let key = session.create_key(&alias);
    let key = key.await.map_err(|failure| failure.during("make a key"))?;
    let request = json!({"name": "demo-encrypted", "cmk_id": key});
    let replica = replicate(&session, &image, &request, size, output);
    let replica = done.step("replicate under a key", replica).await?;
    let fetched = download(&session, &replica, &sealed, size, output);
    let replica = done.step("download the encrypted replica", fetched).await?;
    let compared = blocking(move || {
        if replica["__system__cmkid"] != key {
            return Err(Failure::new("the replica is not under the key"));
        }
        compare(&original, &sealed, &replica)
    });
    done.step("compare every byte of it", compared).await?;
    Ok(done.steps)
}

/// The step that the others are held against.
const COPY: &str = "cp and fsync, for comparison";

/// The steps that were done, on an image of so many bytes.
struct Done {
    size: u64,
    steps: Vec<Step>,
}

impl Done {
    /// Does a step and notes what it took.
    ///
    /// # Errors
    /// The work's, with the step's name.
    async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let made = work.await.map_err(|failure| failure.during(name))?;
        self.steps.push(Step {
            name,
            took: began.elapsed(),
            bytes: self.size,
        });
        Ok(made)
    }
}

/// Makes an image of the file's bytes; its id comes back.
async fn upload(
    session: &Session,
    file: &Path,
    size: u64,
    output: &Output,
) -> Result<String, Failure> {
    let new = json!({"name": "demo", "disk_format": "raw", "container_format": "bare"});
    let image = session.create_image(&new).await?;
    let id = cell(&image, "id");
    let bar = output.bytes_bar("upload", Some(size));
    let sent = session
        .upload(&id, &Upload::File(file.to_owned()), None, &bar)
        .await;
    bar.finish_and_clear();
    sent.map(|()| id)
}

/// Replicates an image and waits for the job; the replica's id comes back.
async fn replicate(
    session: &Session,
    image: &str,
    request: &Value,
    size: u64,
    output: &Output,
) -> Result<String, Failure> {
    let job = session.replicate(image, request).await?;
    let bar = output.bytes_bar("replicate", Some(size));
    let wait = JobWait {
        first_look: Duration::from_millis(5),
        ..JobWait::default()
    };
    let ended = session.wait_job(&job, wait, &bar).await;
    bar.finish_and_clear();
    Ok(cell(&ended?["entities"], "image_id"))
}

/// Fetches an image's bytes into a file; its document comes back.
async fn download(
    session: &Session,
    image: &str,
    file: &Path,
    size: u64,
    output: &Output,
) -> Result<Value, Failure> {
    let image = session.show_image(image).await?;
    let bar = output.bytes_bar("download", Some(size));
    let got = session
        .download(&image, &Target::File(file.to_owned()), &bar)
        .await;
    bar.finish_and_clear();
    got.map(|_| image)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(error.to_string()))
        .flatten()
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::copy(from, to)?;
    Ok(File::open(to)?.sync_all()?)
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
    let mut sha256 = Sha256::new();
    let mut sha512 = Sha512::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(named)?;
        if read == 0 {
            break;
        }
        md5.update(&buffer[..read]);
        sha256.update(&buffer[..read]);
        sha512.update(&buffer[..read]);
    }
    Ok(FileDigests {
        md5: hex::encode(md5.finalize()),
        sha256: hex::encode(sha256.finalize()),
        sha512: hex::encode(sha512.finalize()),
    })
}

fn report(steps: &[Step], output: &Output) -> Result<(), Failure> {
    let copy = steps
        .iter()
        .find(|step| step.name == COPY)
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
    output.note("every byte of both replicas is the original's; md5 and sha512 match");
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

#[cfg(test)]
mod tests;
