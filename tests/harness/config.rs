//! The texts of configuration files, so that the names of their fields stand in one place.

use std::path::Path;

/// A deployment in which a project may have this many images, and this many replications at a time.
pub fn limits(images: u64, replicas: u64) -> String {
    format!("[limits]\nimages_per_project = {images}\nconcurrent_replicas = {replicas}\n")
}

/// A deployment in which a project may have this many bytes. Those that its images share count for each where `each`
/// says so.
pub fn bytes(most: u64, each: bool) -> String {
    format!("[limits]\nbytes_per_project = {most}\ncharge_shared = {each}\n")
}

/// A deployment that takes no image of more than this many bytes.
pub fn image_size(bytes: u64) -> String {
    format!("[limits]\nmax_image_size = {bytes}\n")
}

/// A deployment that replicates no image of more than this many bytes.
pub fn replica_size(bytes: u64) -> String {
    format!("[limits]\nmax_replica_size = {bytes}\n")
}

/// A deployment in which public images may be replicated.
pub fn public_replicas() -> String {
    "[replication]\nallow_public = true\n".to_owned()
}

/// A deployment whose tokens end after this many seconds.
pub fn token_lifetime(seconds: u64) -> String {
    format!("[identity]\ntoken_lifetime = \"{seconds}s\"\n")
}

/// A deployment that takes requests for this many seconds after it was asked to stop.
pub fn drain_delay(seconds: u64) -> String {
    format!("[server]\ndrain_delay = \"{seconds}s\"\n")
}

/// A deployment whose workers, this many in each process, are believed dead after this many seconds of
/// silence.
pub fn jobs(workers: u32, lease: u64) -> String {
    format!("[jobs]\nworkers = {workers}\nlease = \"{lease}s\"\n")
}

/// A deployment whose workers tell their metrics at an address.
pub fn worker_metrics(address: &str) -> String {
    format!("[jobs]\nmetrics_listen = \"{address}\"\n")
}

/// A deployment that keeps bytes without an image for this many seconds.
pub fn deletion_grace(seconds: u64) -> String {
    format!("[images]\ndeletion_grace = \"{seconds}s\"\n")
}

/// A deployment that keeps ended jobs and lines of the audit trail for this many seconds.
pub fn kept(seconds: u64) -> String {
    format!("[jobs]\nkept = \"{seconds}s\"\n[audit]\nkept = \"{seconds}s\"\n")
}

/// A deployment that gives running requests this many seconds when it is asked to stop.
pub fn shutdown_grace(seconds: u64) -> String {
    format!("[server]\nshutdown_grace = \"{seconds}s\"\n")
}

/// A deployment that waits this many seconds for the head of a request, between two, and while a body stands still.
pub fn patience(head: u64, between: u64, body: u64) -> String {
    format!(
        "[server]\nheader_timeout = \"{head}s\"\nkeep_alive = \"{between}s\"\nbody_idle_timeout = \"{body}s\"\n"
    )
}

/// A deployment whose uploads have at least this many bytes a second, in each second that they are waited for.
pub fn upload_rate(bytes: u64) -> String {
    format!("[server]\nmin_upload_rate = {bytes}\nmin_upload_rate_after = \"1s\"\n")
}

/// A deployment that takes this many connections and works at this many requests.
pub fn at_once(connections: u64, requests: u64) -> String {
    format!("[server]\nmax_connections = {connections}\nmax_requests = {requests}\n")
}

/// A deployment of this many nodes that takes this many uploads of a project, and so many at each node.
pub fn uploads(of_project: u64, at_node: u64, nodes: u64) -> String {
    format!(
        "[limits]\nconcurrent_uploads = {of_project}\nnodes = {nodes}\n\
         [server]\nconcurrent_uploads = {at_node}\n"
    )
}

/// A deployment of this many nodes, in which a project makes one request a second, and so many at once.
pub fn project_rate(burst: u64, nodes: u64) -> String {
    format!("[limits]\nrequests_per_second = 1\nburst = {burst}\nnodes = {nodes}\n")
}

/// A deployment of this many nodes, in which an address makes one request without a credential in a second, and so many at once.
/// What runs on this machine is a trusted proxy.
pub fn address_rate(burst: u64, nodes: u64) -> String {
    format!(
        "[limits]\nanonymous_requests_per_second = 1\nanonymous_burst = {burst}\nnodes = {nodes}\n\
         [server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n"
    )
}

/// A deployment that clients reach by this address, through a proxy on this machine.
pub fn behind(url: &str) -> String {
    format!("[server]\npublic_url = \"{url}\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n")
}

/// A deployment that logs at this level.
pub fn log(level: &str) -> String {
    format!("[log]\nlevel = \"{level}\"\n")
}

/// A deployment whose catalog is a PostgreSQL.
pub fn postgres(url: &str) -> String {
    format!("[catalog]\nurl = \"{url}\"\n")
}

/// A deployment of several servers: one PostgreSQL, and one directory that all see, as [`kept_in`] has it.
pub fn shared(url: &str, directory: &Path) -> String {
    format!("{}\n{}", postgres(url), kept_in(directory))
}

/// A deployment that has its blobs in `blobs` and its root key in `root.key` of a directory.
pub fn kept_in(directory: &Path) -> String {
    let (blobs, root_key) = (directory.join("blobs"), directory.join("root.key"));
    format!("[store.main]\npath = {blobs:?}\n[keys]\nroot_key_file = {root_key:?}\n")
}

/// A deployment whose customers' keys are in Barbican, which does not know the callers. The login is a user's name, its
/// project's, and the file with its password.
pub fn barbican(keystone: &str, region: &str, login: (&str, &str, &Path)) -> String {
    let (user, project, password) = login;
    format!(
        "[keys]\ncustomers = \"barbican\"\n\
         [keys.barbican]\nauthorize = \"service\"\ncache_life = \"1s\"\n\
         [keys.barbican.login]\nauth_url = \"{keystone}\"\nregion = \"{region}\"\n\
         user = \"{user}\"\nproject = \"{project}\"\npassword_file = {password:?}\n\
         [keys.barbican.connection]\nattempt_timeout = \"30s\"\ntime_limit = \"60s\"\n"
    )
}

/// A deployment that clients reach at another address than the one that it listens at.
pub fn public_url(url: &str) -> String {
    format!("[server]\npublic_url = \"{url}\"\n")
}

/// A deployment with a KMS at `keystone`'s, whose answers are asked for each time. `authorize` says who has to agree; the
/// login is as [`barbican`]'s. That the KMS has the customers' keys is said by [`CUSTOMERS_AT_THE_KMS`].
pub fn kms(keystone: &str, authorize: &str, login: (&str, &str, &Path)) -> String {
    let (user, project, password) = login;
    format!(
        "[keys.kms]\nauthorize = \"{authorize}\"\ncache_life = \"0s\"\n\
         [keys.kms.login]\nauth_url = \"{keystone}\"\n\
         user = \"{user}\"\nproject = \"{project}\"\npassword_file = {password:?}\n{KMS_PATIENCE}"
    )
}

/// As [`kms`], with an access key: its id, its project's id, and the file with its secret.
pub fn kms_signed(endpoint: &str, access_key: (&str, &str, &Path)) -> String {
    let (id, project, secret) = access_key;
    format!(
        "[keys.kms]\nendpoint = \"{endpoint}\"\ncredential = \"access_key\"\n\
         authorize = \"service\"\ncache_life = \"0s\"\n\
         [keys.kms.access_key]\nid = \"{id}\"\nproject_id = \"{project}\"\n\
         secret_file = {secret:?}\n{KMS_PATIENCE}"
    )
}

/// Longer than a login takes on a busy machine.
const KMS_PATIENCE: &str = "[keys.kms.connection]\nattempt_timeout = \"5s\"\ntime_limit = \"6s\"\n";

/// The variable that says that customers' keys are in the KMS.
pub const CUSTOMERS_AT_THE_KMS: (&str, &str) = ("CALOTYPE_KEYS__CUSTOMERS", "otc");

/// A deployment that reseals this many bytes a second, in all and for each job, and so many segments at once.
pub fn reseal_pace(node_rate: u64, job_rate: u64, segments: u32) -> String {
    format!(
        "[replication]\nnode_rate = {node_rate}\njob_rate = {job_rate}\nsegments_in_flight = {segments}\n"
    )
}

/// A deployment whose stored bytes are read again after so many seconds.
pub fn scrub(seconds: u64) -> String {
    format!("[scrub]\nevery = \"{seconds}s\"\n")
}

/// A deployment in which images may be rewrapped.
pub fn rewrap() -> String {
    "[replication]\nallow_rewrap = true\n".to_owned()
}

/// A deployment whose root keys are in a file, in the environment (`CALOTYPE_ROOT_KEY`), or in a credential.
pub fn root_key_from(place: &str) -> String {
    format!("[keys]\nroot_key_from = \"{place}\"\n")
}

/// A deployment with other services' habits.
pub fn profile(name: &str) -> String {
    format!("[images]\nprofile = \"{name}\"\n")
}

/// A deployment in which a project may have this many master keys.
pub fn keys(most: u64) -> String {
    format!("[limits]\nkeys_per_project = {most}\n")
}

/// The section that has buckets below a directory, also where a server is on engines.
pub const DIRECTORY_OF_BUCKETS: &str = "[objects]\ntype = \"directory\"\n";

/// A deployment whose buckets are in a store that speaks S3, reached at `endpoint` with an access key: its id, and the file
/// with its secret. It is not waited for for long.
pub fn s3(endpoint: &str, access_key: (&str, &Path)) -> String {
    let (id, secret) = access_key;
    format!(
        "[objects]\ntype = \"s3\"\nendpoint = {endpoint:?}\nallow_http = true\n\
         unlisted_buckets = \"allow\"\naccess_key = {id:?}\nsecret_file = {secret:?}\n\
         [objects.connection]\nidle_timeout = \"5s\"\ntime_limit = \"8s\"\n"
    )
}

/// A deployment whose blobs are in a bucket of a store that speaks S3, reached as [`s3`]'s. Further lines of its section
/// may follow.
pub fn s3_store(endpoint: &str, bucket: &str, access_key: (&str, &Path)) -> String {
    let (id, secret) = access_key;
    format!(
        "[store.main.connection]\nidle_timeout = \"5s\"\nattempt_timeout = \"10s\"\ntime_limit = \"15s\"\n\
         [store.main]\ntype = \"s3\"\nendpoint = {endpoint:?}\nallow_http = true\n\
         bucket = {bucket:?}\naccess_key = {id:?}\nsecret_file = {secret:?}\n"
    )
}
