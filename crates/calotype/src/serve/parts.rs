//! The parts of the service, put together as the configuration says.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calotype_api::load::{Admission, LoadLimits, Rate, SlowestBody};
use calotype_api::{ApiState, Leaving};
use calotype_blob::{ResealOptions, SealOptions, SealedBlobs, Stores};
use calotype_catalog::{DirectUrl, Pooler, SqlCatalog};
use calotype_convert::{QemuImg, QemuOptions};
use calotype_core::Error;
use calotype_core::access::Access;
use calotype_core::app::{Limits, Profile, ScrubOptions, Service, Settings};
use calotype_core::ports::{
    Catalog, Clock, DigestChoice, Entropy, KeyService, Places, Reconcile as _, Secrets, SharedBlobs,
};
use calotype_identity::Renewal;
use calotype_keys::{EmbeddedKeys, SystemEntropy};

use super::identity::Identity;
use super::keys::key_services;
use super::objects::{bucket_access, objects};
use super::stores::{open_stores, store_list};
use super::{ServeOptions, ownership};
use crate::clouds::{FirstUsers, write_clouds_yaml};
use crate::config::Bytes;
use crate::config::Config;
use crate::config::identity::IdentityType;
use crate::config::objects::ObjectsType;
use crate::config::sections::{self, Digest, Permission};
use crate::exit::Failure;
use crate::system::SystemClock;
use crate::telemetry;

/// The parts.
pub(crate) struct Parts {
    /// The use cases.
    pub(crate) service: Arc<Service>,
    /// The key service.
    pub(crate) keys: Arc<EmbeddedKeys>,
    identity: Identity,
    entropy: Arc<dyn Entropy>,
    /// What makes disks in other formats.
    pub(crate) converter: Arc<QemuImg>,
}

/// Opens keys, catalog and store, and puts the service together over them.
///
/// # Errors
/// Where one of them can't be opened; says which.
pub(crate) async fn assemble(options: &ServeOptions) -> Result<Parts, Failure> {
    let config = &options.config;
    let data_dir = &options.data_dir;
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());

    let catalog = Arc::new(open_catalog(options).await?);
    // Where several nodes share a database, they have its time.
    let clock = catalog.clock();

    let stores = open_own_stores(options, &catalog, (&clock, &entropy)).await?;
    let access = Access::default();
    let keys = open_keys(options, &catalog, &stores, &clock, &entropy, &access).await?;
    let services = key_services(&config.keys, Arc::clone(&keys) as _, &entropy, &clock)?;
    let services: Arc<dyn KeyService> = Arc::new(services);

    let blobs = SealedBlobs::over(
        stores,
        Arc::clone(&services),
        Arc::clone(&entropy),
        Arc::clone(&clock),
        SealOptions {
            reseal: reseal_options(config),
            ..SealOptions::default()
        },
    );

    let secrets = Arc::clone(&keys) as Arc<dyn Secrets>;
    let identity = Identity::open(config, &catalog, secrets, &access, (&clock, &entropy))?;
    let converter = Arc::new(converter(config, data_dir)?);
    let service_ports = calotype_core::app::Ports {
        projects: identity.projects(&catalog),
        catalog: catalog as Arc<dyn Catalog>,
        blobs: Arc::new(blobs),
        keys: services,
        objects: objects(&config.objects, data_dir, (&clock, &entropy))?,
        compute: Arc::new(calotype_core::ports::NoCompute),
        converter: Arc::clone(&converter) as _,
        clock,
        entropy: Arc::clone(&entropy),
    };
    let service = Service::new(service_ports, access, settings(config));
    Ok(Parts {
        service: Arc::new(service),
        keys,
        identity,
        entropy,
        converter,
    })
}

/// What makes disks in other formats. Nothing is run yet.
pub(super) fn converter(config: &Config, data_dir: &Path) -> Result<QemuImg, Failure> {
    let export = &config.export;
    let folder = export.folder.clone();
    let options = QemuOptions {
        program: export.qemu_img.clone(),
        folder: folder.unwrap_or_else(|| data_dir.join("exports")),
        write_behind: config.objects.kind == ObjectsType::Directory,
        at_once: usize::try_from(export.conversions).unwrap_or(usize::MAX),
        timeout: export.timeout.duration(),
        memory: export.memory.0,
    };
    let folder = options.folder.display().to_string();
    QemuImg::open(options)
        .map_err(|error| Failure::new(format!("the exports in {folder}: {error}")))
}

/// Gives the store to the catalog, whosever it was.
///
/// # Errors
/// Where one of them can't be opened or written.
pub(super) async fn adopt_store(options: &ServeOptions) -> Result<(), Failure> {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let catalog = open_catalog(options).await?;
    let ports = (&catalog.clock(), &entropy);
    let stores = open_stores(&options.config, &options.data_dir, ports)?;
    for (name, store) in &stores {
        ownership::adopt(&catalog, (name, store.as_ref()), entropy.as_ref()).await?;
    }
    // Two names for one store are found now.
    for (name, store) in &stores {
        ownership::check(&catalog, (name, store.as_ref()), entropy.as_ref()).await?;
    }
    Ok(())
}

/// The stores, once it is sure that each is the catalog's and that every blob is in one of them.
async fn open_own_stores(
    options: &ServeOptions,
    catalog: &Arc<SqlCatalog>,
    (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
) -> Result<Stores, Failure> {
    let config = &options.config;
    let stores = open_stores(config, &options.data_dir, (clock, entropy))?;
    // Before anything else: nothing is done to blobs that are another catalog's, or without their keys.
    for (name, store) in &stores {
        ownership::check(catalog.as_ref(), (name, store.as_ref()), entropy.as_ref()).await?;
    }
    let used = catalog
        .stores_in_use()
        .await
        .map_err(failed("the catalog"))?;
    if let Some(missing) = used.iter().find(|name| !stores.contains_key(*name)) {
        return Err(Failure::new(format!(
            "the catalog has blobs in the store {missing}, which the configuration does not name"
        ))
        .with_hint(
            "add its section [store.NAME] again, or move its blobs elsewhere first: docs/stores.md",
        ));
    }
    if !config.store.is_main_alone() {
        let several = catalog.have_several_stores().await;
        several.map_err(failed("the catalog"))?;
    }
    let default = config.store.default_of(&config.stores);
    let places = Arc::clone(catalog) as Arc<dyn Places>;
    Stores::new(stores, default, places).map_err(failed("the stores"))
}

async fn open_keys(
    options: &ServeOptions,
    catalog: &Arc<SqlCatalog>,
    stores: &Stores,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
    access: &Access,
) -> Result<Arc<EmbeddedKeys>, Failure> {
    let ports = calotype_keys::Ports {
        catalog: Arc::clone(catalog) as _,
        labels: Arc::new(stores.clone()),
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
    };
    let config = &options.config;
    let key_options = calotype_keys::Options {
        keys_per_project: config.limits.keys_per_project.into(),
        region: config.identity.region.clone(),
        knows_users: config.identity.kind == IdentityType::Embedded,
    };
    let source = options.root_keys.clone();
    let keys = EmbeddedKeys::open(ports, source, access.clone(), key_options);
    keys.await.map(Arc::new).map_err(failed("the root keys"))
}

impl Parts {
    /// Makes the first users where there are none, and writes their `clouds.yaml` into the data directory. Where users
    /// are a Keystone's there is nothing to make.
    ///
    /// # Errors
    /// Where the catalog or the file can't be written. The next start does it again.
    pub(crate) async fn bootstrap(
        &self,
        options: &ServeOptions,
        address: SocketAddr,
    ) -> Result<PathBuf, Failure> {
        let clouds_yaml = options.data_dir.join("clouds.yaml");
        let Identity::Embedded(identity) = &self.identity else {
            return Ok(clouds_yaml);
        };
        let made = identity.bootstrap(Renewal::UntilConfirmed).await;
        let Some(first) = made.map_err(failed("the first start"))? else {
            return Ok(clouds_yaml);
        };
        let config = &options.config;
        let url = config
            .server
            .public_url
            .clone()
            .unwrap_or_else(|| format!("http://{address}"));
        let users = FirstUsers {
            url,
            region: config.identity.region.clone(),
            demo_password: first.demo.password,
            admin_password: first.admin.password,
            demo_access_key: Some((first.demo.access_key.access, first.demo.access_key.secret)),
        };
        write_clouds_yaml(&clouds_yaml, &users)?;
        identity
            .confirm_bootstrap()
            .await
            .map_err(failed("the first start"))?;
        Ok(clouds_yaml)
    }

    /// What a worker tells of itself.
    ///
    /// # Errors
    /// Where the metrics can't be started.
    pub(crate) fn worker_router(&self) -> Result<axum::Router, Failure> {
        let metrics = telemetry::start_metrics()?;
        let render = Arc::new(move || metrics.render());
        Ok(calotype_api::ops::of_worker(
            Arc::clone(&self.service),
            render,
        ))
    }

    /// The API over the parts.
    ///
    /// # Errors
    /// Where the metrics can't be started.
    pub(crate) fn router(
        &self,
        config: &Config,
        leaving: Leaving,
    ) -> Result<axum::Router, Failure> {
        let metrics = telemetry::start_metrics()?;
        let public_url: Option<Arc<str>> = config.server.public_url.as_deref().map(Arc::from);
        let max_json_body = config.server.max_json_body.0.bytes();
        let state = ApiState {
            service: Arc::clone(&self.service),
            authenticator: self.identity.authenticator(),
            public_url: public_url.clone(),
            render_metrics: Arc::new(move || metrics.render()),
            max_json_body: usize::try_from(max_json_body).unwrap_or(usize::MAX),
            body_idle_timeout: config.server.body_idle_timeout.duration(),
            admission: Arc::new(Admission::new(load_limits(config))),
            leaving,
        };
        let identity = self.identity.api(public_url);
        Ok(calotype_api::router::app(
            state,
            identity,
            Arc::clone(&self.keys),
            Arc::clone(&self.entropy),
        ))
    }
}

/// A failure that says which part of the service it is about, with the whole chain: it is for the operator.
pub(super) fn failed(part: &'static str) -> impl Fn(Error) -> Failure {
    move |error| {
        let chain = error.chain();
        Failure::new(format!("{part}: {}", chain.trim_end_matches('.')))
    }
}

/// Opens the catalog.
///
/// # Errors
/// Where its password can't be read, or it can't be opened.
pub(super) async fn open_catalog(options: &ServeOptions) -> Result<SqlCatalog, Failure> {
    let config = &options.config;
    let url = catalog_url(config, &options.data_dir)?;
    let catalog = SqlCatalog::open(&url, catalog_options(config)?, Arc::new(SystemClock));
    catalog.await.map_err(failed("the catalog"))
}

/// The catalog's URL, with the password of its file where it has one.
pub(super) fn catalog_url(config: &Config, data_dir: &Path) -> Result<String, Failure> {
    match &config.catalog.url {
        Some(url) => with_password(url, &config.catalog),
        None => Ok(format!(
            "sqlite://{}",
            data_dir.join("catalog.db").display()
        )),
    }
}

fn with_password(url: &str, config: &sections::Catalog) -> Result<String, Failure> {
    let Some(file) = &config.password_file else {
        return Ok(url.to_owned());
    };
    let password = std::fs::read_to_string(file).map_err(|error| {
        Failure::usage(format!("catalog.password_file {}: {error}", file.display()))
    })?;
    let encoded = percent_encoding::utf8_percent_encode(
        password.trim_end_matches(['\r', '\n']),
        percent_encoding::NON_ALPHANUMERIC,
    );
    match url.split_once('@') {
        Some((user, rest)) => Ok(format!("{user}:{encoded}@{rest}")),
        None => Err(Failure::usage(
            "the catalog's URL names no user for catalog.password_file",
        )),
    }
}

pub(super) fn catalog_options(config: &Config) -> Result<calotype_catalog::Options, Failure> {
    let catalog = &config.catalog;
    let pooler = match (catalog.pooler, &catalog.direct_url) {
        (sections::Pooler::Transaction, Some(url)) => {
            Pooler::Transaction(DirectUrl(with_password(url, catalog)?))
        }
        _ => Pooler::None,
    };
    Ok(calotype_catalog::Options {
        connections: catalog.connections,
        acquire_timeout: catalog.acquire_timeout.duration(),
        statement_timeout: catalog.statement_timeout.duration(),
        pooler,
        audit_kept: config.audit.kept.duration(),
        jobs_kept: config.jobs.kept.duration(),
        new_blobs: config.store.default_of(&config.stores),
        ..calotype_catalog::Options::default()
    })
}

/// The bounds on what this process takes at once.
fn load_limits(config: &Config) -> LoadLimits {
    let (server, limits) = (&config.server, &config.limits);
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let nodes = limits.nodes.get();
    let rate = |per_second: Option<NonZeroU32>, burst: NonZeroU32| {
        per_second.map(|per_second| Rate {
            per_second: per_second.get(),
            burst: burst.get(),
            nodes,
        })
    };
    let slowest = server.min_upload_rate.0.bytes();
    LoadLimits {
        requests: Some(count(server.max_requests)),
        uploads: Some(count(server.concurrent_uploads)),
        uploads_per_project: limits
            .concurrent_uploads
            .map(|uploads| count((uploads.get() / nodes).max(1))),
        project_rate: rate(limits.requests_per_second, limits.burst),
        address_rate: rate(limits.anonymous_requests_per_second, limits.anonymous_burst),
        trusted_proxies: server.trusted_proxies.clone(),
        slowest_upload: (slowest > 0).then(|| SlowestBody {
            per_second: slowest,
            after: server.min_upload_rate_after.duration(),
        }),
    }
}

/// How this process reseals.
fn reseal_options(config: &Config) -> ResealOptions {
    let replication = &config.replication;
    let rate = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.0.bytes());
    ResealOptions {
        segments: replication
            .segments_in_flight
            .map(|segments| usize::try_from(segments).unwrap_or(usize::MAX)),
        memory: replication.memory.0,
        node_rate: rate(replication.node_rate),
        job_rate: rate(replication.job_rate),
    }
}

/// The domain's settings of a configuration.
fn settings(config: &Config) -> Settings {
    let limits = &config.limits;
    let digests = &config.images.digests;
    Settings {
        region: config.identity.region.clone(),
        profile: match config.images.profile {
            sections::Profile::Calotype => Profile::Calotype,
            sections::Profile::Otc => Profile::Otc,
        },
        limits: Limits {
            images_per_project: limits.images_per_project.into(),
            concurrent_replicas: limits.concurrent_replicas.into(),
            concurrent_member_jobs: limits.concurrent_member_jobs.into(),
            concurrent_imports: limits.concurrent_imports.into(),
            concurrent_exports: limits.concurrent_exports.into(),
            tags_per_image: usize::try_from(limits.tags_per_image).unwrap_or(usize::MAX),
            ims_tags_per_image: usize::try_from(limits.ims_tags_per_image).unwrap_or(usize::MAX),
            members_per_image: limits.members_per_image.into(),
            properties_per_image: usize::try_from(limits.properties_per_image)
                .unwrap_or(usize::MAX),
            bytes_per_project: limits.bytes_per_project.map(|size| size.0),
            shared_blobs: match limits.charge_shared {
                true => SharedBlobs::Each,
                false => SharedBlobs::Once,
            },
            max_image_size: limits.max_image_size.map(|size| size.0),
            max_replica_size: limits.max_replica_size.map(|size| size.0),
            max_import_size: limits.max_import_size.map(|size| size.0),
            max_export_size: limits.max_export_size.map(|size| size.0),
            max_quick_export_size: limits.max_quick_export_size.map(|size| size.0),
        },
        digests: DigestChoice {
            md5: digests.contains(&Digest::Md5),
            sha256: digests.contains(&Digest::Sha256),
            sha512: digests.contains(&Digest::Sha512),
        },
        deletion_grace: config.images.deletion_grace.duration(),
        replicate_public: config.replication.allow_public,
        replicate_shared_encrypted: config.replication.shared_encrypted == Permission::Allow,
        allow_rewrap: config.replication.allow_rewrap,
        buckets: bucket_access(&config.objects),
        stores: store_list(config),
        scrub: ScrubOptions {
            every: config.scrub.every.duration(),
            rate: config.scrub.rate.0,
        },
        ..Settings::default()
    }
}
