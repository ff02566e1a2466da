//! The service itself: its parts put together, started, and stopped in order.
//!
//! # Crash consistency
//! Nothing here needs an orderly end: `kill -9` at any instant leaves what the next start repairs. The order of
//! stopping only spares clients: no new connections, a grace for running requests, running jobs handed back.

mod connections;
mod doctor;
mod identity;
mod keys;
mod lock;
mod objects;
mod ownership;
mod parts;
mod relocate;
mod stores;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use calotype_api::Leaving;
use calotype_convert::QemuImg;
use calotype_core::app::{Reconciler, Scrubber, Service, Worker, WorkerOptions};
use calotype_keys::RootSource;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::cli::{AdoptStoreArgs, ServeArgs};
use crate::config::key_services::RootKeyFrom;
use crate::config::sections::Server;
use crate::config::{Config, Environment};
use crate::exit::Failure;
use crate::output::Output;
use crate::system::{keep_memory_private, process_name, want_descriptors};
use crate::telemetry;
use connections::{Connections, Timeouts};

pub(crate) use doctor::run as doctor;
pub(crate) use relocate::run as migrate_catalog;

/// How often the reconciler begins a round.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(10);

/// Descriptors that everything but connections needs: the catalog, files of the store, jobs.
const OTHER_DESCRIPTORS: u64 = 1024;

/// How long after the grace's end the background tasks may take to notice it.
const CUT_AFTER_GRACE: Duration = Duration::from_secs(1);

/// How often it is looked whether connections that are ended have gone.
const CONNECTIONS_END: Duration = Duration::from_millis(5);

/// How long it may take to undo what was cut off.
const UNDOING: Duration = Duration::from_secs(3);

/// What the service is started with.
#[derive(Debug, Clone)]
pub(crate) struct ServeOptions {
    /// The directory of the catalog, the blobs, the root key and `clouds.yaml`.
    pub(crate) data_dir: PathBuf,
    /// The configuration in force, flags included.
    pub(crate) config: Config,
    /// Where the root keys are.
    pub(crate) root_keys: RootSource,
}

/// The environment's variable that holds root keys, where the configuration says so.
const ROOT_KEYS_VARIABLE: &str = "CALOTYPE_ROOT_KEY";

impl ServeOptions {
    /// The options on a directory, with the root keys from where the configuration says.
    ///
    /// # Errors
    /// Usage: the environment lacks what the configuration wants of it.
    pub(crate) fn new(
        data_dir: PathBuf,
        config: Config,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let wanted = |name: &str| {
            let value = environment.get(name);
            value
                .ok_or_else(|| Failure::usage(format!("keys.root_key_from wants {name} to be set")))
        };
        let root_keys = match config.keys.root_key_from {
            RootKeyFrom::File => {
                let path = config.keys.root_key_file.clone();
                RootSource::File(path.unwrap_or_else(|| data_dir.join("root.key")))
            }
            RootKeyFrom::Environment => {
                let text = Zeroizing::new(wanted(ROOT_KEYS_VARIABLE)?.to_owned());
                RootSource::Environment(ROOT_KEYS_VARIABLE.to_owned(), text)
            }
            RootKeyFrom::Credential => {
                let directory = Path::new(wanted("CREDENTIALS_DIRECTORY")?);
                RootSource::Credential(directory.join(&config.keys.root_key_credential))
            }
        };
        Ok(Self {
            data_dir,
            config,
            root_keys,
        })
    }
}

/// A service that runs in this process.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The first users' file.
    pub(crate) clouds_yaml: PathBuf,
    stop: CancellationToken,
    handle: axum_server::Handle<SocketAddr>,
    leaving: Leaving,
    drain: Duration,
    grace: Duration,
    server: JoinHandle<std::io::Result<()>>,
    background: Vec<JoinHandle<()>>,
    service: Arc<Service>,
    _lock: Option<lock::DataDirLock>,
}

/// `calotype serve`: runs until it is told to stop.
///
/// # Errors
/// Where the service can't be started, or its listener fails.
pub(crate) async fn run(
    args: ServeArgs,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let options = options(&args, environment)?;
    telemetry::start_logging(&options.config.log)?;
    keep_memory_private();
    let mut termination = Termination::listen()?;
    let data_dir = options.data_dir.display().to_string();
    let mut running = start(options).await?;
    output.text(&format!(
        "calotype is ready: http://{} data={data_dir}",
        running.address
    ))?;
    tokio::select! {
        () = termination.asked() => {}
        failed = &mut running.server => return server_outcome(failed),
    }
    running.stop(termination.asked()).await
}

/// `calotype worker`: does jobs, and serves no requests but for its metrics.
///
/// # Errors
/// Where the worker can't be started, or the address for its metrics is taken.
pub(crate) async fn run_worker(
    args: ServeArgs,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let options = options(&args, environment)?;
    telemetry::start_logging(&options.config.log)?;
    keep_memory_private();
    let mut termination = Termination::listen()?;
    let lock = lock::acquire_if_embedded(&options)?;
    let parts = parts::assemble(&options).await?;
    take_over(&options, lock.as_ref(), &parts).await?;
    if let Some(listen) = options.config.jobs.metrics_listen {
        tell_metrics(listen, &options.config.server, &parts)?;
    }
    let stop = CancellationToken::new();
    let background = start_background(&options.config, &parts, &stop);
    output.text("calotype worker is ready")?;
    termination.asked().await;
    stop.cancel();
    tokio::select! {
        () = join_all(background) => {}
        () = termination.asked() => tracing::warn!("cut short: the leases of running jobs will end"),
    }
    Ok(())
}

/// Tells how a worker does at an address, as long as the process lives.
fn tell_metrics(listen: SocketAddr, config: &Server, parts: &parts::Parts) -> Result<(), Failure> {
    let listener = bind(listen)?;
    let address = listener.local_addr()?;
    let app = parts.worker_router()?.into_make_service();
    let server = axum_server::from_tcp(listener)?
        .acceptor(connections(config))
        .http1_only();
    tokio::spawn(async move {
        if let Err(error) = server.serve(app).await {
            tracing::error!(error.chain = %error, "the metrics are told no more");
        }
    });
    tracing::info!(%address, "the metrics are told");
    Ok(())
}

/// Listens at an address.
fn bind(listen: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(listen)
        .map_err(|error| Failure::new(format!("can't listen on {listen}: {error}")))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// `calotype admin verify --data-dir`: checks a stopped system; the report has the form of
/// `GET /admin/v1/verify`.
///
/// # Errors
/// Where a service runs on the directory, or its parts can't be opened.
pub(crate) async fn verify_stopped(
    options: ServeOptions,
    deep: bool,
) -> Result<serde_json::Value, Failure> {
    if !options.data_dir.is_dir() {
        return Err(Failure::usage(format!(
            "{} is no directory",
            options.data_dir.display()
        )));
    }
    keep_memory_private();
    let _lock = lock::acquire_if_embedded(&options)?;
    let parts = parts::assemble(&options).await?;
    let verification = parts
        .service
        .verify(deep)
        .await
        .map_err(parts::failed("the check"))?;
    serde_json::to_value(verification).map_err(|error| Failure::new(error.to_string()))
}

/// `calotype admin adopt-store`: gives the store to the catalog, whosever it was.
///
/// # Errors
/// Where a service runs on the directory, or catalog or store can't be opened.
pub(crate) async fn adopt_store(
    args: &AdoptStoreArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref(), environment)?;
    keep_memory_private();
    let options = ServeOptions::new(args.data_dir.clone(), config, environment)?;
    let _lock = lock::acquire_if_embedded(&options)?;
    parts::adopt_store(&options).await
}

/// Starts the service in this process.
///
/// # Errors
/// Where the data directory is in use or can't be written, the address is taken, or a part can't be reached.
pub(crate) async fn start(options: ServeOptions) -> Result<Running, Failure> {
    let config = &options.config;
    let lock = lock::acquire_if_embedded(&options)?;
    let listener = bind(config.server.listen)?;
    let address = listener.local_addr()?;

    let parts = parts::assemble(&options).await?;
    take_over(&options, lock.as_ref(), &parts).await?;
    let clouds_yaml = parts.bootstrap(&options, address).await?;
    let leaving = Leaving::default();
    let app = parts.router(config, leaving.clone())?;

    let stop = CancellationToken::new();
    let handle = axum_server::Handle::new();
    let server = axum_server::from_tcp(listener)?
        .acceptor(connections(&config.server))
        .http1_only()
        .handle(handle.clone());
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(server.serve(app));
    let background = start_background(config, &parts, &stop);
    Ok(Running {
        address,
        clouds_yaml,
        stop,
        handle,
        leaving,
        drain: config.server.drain_delay.duration(),
        grace: config.server.shutdown_grace.duration(),
        server,
        background,
        service: parts.service,
        _lock: lock,
    })
}

/// What takes connections, as many as the process has descriptors for.
fn connections(config: &Server) -> Connections {
    let wanted = usize::try_from(config.max_connections).unwrap_or(usize::MAX);
    let needed = Connections::descriptors(wanted).saturating_add(OTHER_DESCRIPTORS);
    let had = want_descriptors(needed);
    let most = match had < needed {
        true => Connections::within(had.saturating_sub(OTHER_DESCRIPTORS.min(had / 2))).min(wanted),
        false => wanted,
    };
    if most < wanted {
        tracing::warn!(
            most,
            wanted,
            descriptors = had,
            "fewer connections are taken than server.max_connections: the process may have no more descriptors"
        );
    }
    calotype_api::ops::bound_connections(most);
    let timeouts = Timeouts {
        header: config.header_timeout.duration(),
        keep_alive: config.keep_alive.duration(),
        unread: config.body_idle_timeout.duration(),
    };
    Connections::new(most, timeouts)
}

impl Running {
    /// Stops in order: no new jobs and not ready any more; after the time that a load balancer needs to notice that, no new
    /// connections; then a grace for running requests and jobs. What still runs when the grace is over, or when `cut`
    /// completes, is cut off, and what uploads were to be is undone: so that they can be begun again at once.
    ///
    /// # Errors
    /// Where the listener had failed.
    pub(crate) async fn stop(self, cut: impl Future<Output = ()>) -> Result<(), Failure> {
        let (delay, grace) = (self.drain.as_secs_f64(), self.grace.as_secs_f64());
        tracing::info!(delay.s = delay, grace.s = grace, "draining");
        self.leaving.announce();
        self.stop.cancel();
        let drained = async {
            tokio::time::sleep(self.drain).await;
            self.handle.graceful_shutdown(Some(self.grace));
            // The server ends its connections itself when the grace is over.
            let served = server_outcome(self.server.await);
            join_all(self.background).await;
            served
        };
        let over = tokio::time::sleep(self.drain + self.grace + CUT_AFTER_GRACE);
        let served = tokio::select! {
            served = drained => served,
            () = cut => {
                tracing::warn!("asked again to stop: what still runs is cut off");
                Ok(())
            }
            () = over => {
                tracing::warn!("the grace is over: what still runs is cut off");
                Ok(())
            }
        };
        let undone = async {
            // Ends the connections, and so what they ask for. The server itself does not wait for that.
            self.handle.shutdown();
            while self.handle.connection_count() > 0 {
                tokio::time::sleep(CONNECTIONS_END).await;
            }
            self.service.cleaned().await;
        };
        if tokio::time::timeout(UNDOING, undone).await.is_err() {
            tracing::warn!("uploads that were cut off can be begun again when their leases end");
        }
        served
    }
}

/// Ends what the directory's former process left under its leases, where the catalog is in the directory: the
/// lock proves that the process is dead.
async fn take_over(
    options: &ServeOptions,
    lock: Option<&lock::DataDirLock>,
    parts: &parts::Parts,
) -> Result<(), Failure> {
    if lock.is_none() || options.config.catalog.url.is_some() {
        return Ok(());
    }
    let taken = parts.service.take_over().await;
    taken.map_err(parts::failed("what the former process left"))
}

fn server_outcome(
    ended: Result<std::io::Result<()>, tokio::task::JoinError>,
) -> Result<(), Failure> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(format!("the listener failed: {error}"))),
        Err(error) => Err(Failure::new(format!("the server failed: {error}"))),
    }
}

fn start_background(
    config: &Config,
    parts: &parts::Parts,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let service = &parts.service;
    let keys = Arc::clone(&parts.keys);
    let name = process_name();
    let reconciler = Reconciler::new(Arc::clone(service), RECONCILE_INTERVAL, name.clone());
    let scrubber = Scrubber::new(Arc::clone(service), name.clone());
    let mut tasks = vec![
        tokio::spawn(reconciler.run(stop.clone().cancelled_owned())),
        tokio::spawn(scrubber.run(stop.clone().cancelled_owned())),
        tokio::spawn(keys.look_after(stop.clone().cancelled_owned())),
    ];
    let concurrency = usize::try_from(config.jobs.workers).unwrap_or(usize::MAX);
    if concurrency > 0 {
        let options = WorkerOptions {
            name,
            concurrency,
            lease: config.jobs.lease.duration(),
            poll_interval: config.jobs.poll_interval.duration(),
            ..WorkerOptions::default()
        };
        tasks.push(tokio::spawn(say_what_converts(Arc::clone(
            &parts.converter,
        ))));
        let worker = Worker::new(Arc::clone(service), options);
        tasks.push(tokio::spawn(worker.run(stop.clone().cancelled_owned())));
    }
    tasks
}

/// Says in the log what converts images, or why nothing does: it is only missed when one is exported.
async fn say_what_converts(converter: Arc<QemuImg>) {
    match converter.version().await {
        Ok(version) => tracing::info!(%version, "exports are converted by qemu-img"),
        Err(error) => tracing::warn!(
            error.chain = %error.chain(), "images can be exported only in the format that they are stored in"
        ),
    }
}

async fn join_all(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(error.chain = %error, "a background task failed");
        }
    }
}

/// SIGTERM and Ctrl-C, from the moment on that they are listened to.
pub(crate) struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

impl Termination {
    /// Listens from now on.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Completes when the process is asked to end: once for each time.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The options that flags, file and environment give.
fn options(args: &ServeArgs, environment: &Environment) -> Result<ServeOptions, Failure> {
    let mut config = Config::load(args.config.as_deref(), environment)?;
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    ServeOptions::new(args.data_dir.clone(), config, environment)
}
