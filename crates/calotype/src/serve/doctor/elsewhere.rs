//! What other services are asked: stores of buckets, a KMS, and Barbican.

use calotype_core::Error;
use calotype_core::codes::ImsCode;
use calotype_core::object::ObjectAddress;
use calotype_core::ports::Objects;
use calotype_keys::Unmet;

use super::{Finding, Place, State, entropy, mend_of};
use crate::config::objects::ObjectsType;
use crate::exit::Failure;
use crate::serve::keys::{barbican, kms};
use crate::serve::objects::objects;
use crate::serve::parts::failed;
use crate::system::fresh_name;

const MEND_BUCKETS: &str =
    "mend [objects], the bucket, or what its access key may do: docs/object-storage.md";

/// Whether images can come from buckets and go to them.
pub(super) async fn buckets(place: &Place) -> Vec<Finding> {
    let section = &place.options.config.objects;
    if section.kind == ObjectsType::Directory {
        return vec![directory(place)];
    }
    let entropy = entropy();
    let clock = place.clock();
    let store = match objects(section, &place.options.data_dir, (&clock, &entropy)) {
        Ok(store) => store,
        Err(failure) => return vec![Finding::bad(failure.to_string(), MEND_BUCKETS)],
    };
    let reached = reach(store.as_ref(), section.endpoint.as_deref()).await;
    if reached.state != State::Good {
        return vec![reached];
    }
    let mut findings = vec![reached];
    for name in section.buckets.keys() {
        findings.push(bucket(store.as_ref(), name).await);
    }
    findings
}

fn directory(place: &Place) -> Finding {
    let path = place.options.config.objects.path.clone();
    let path = path.unwrap_or_else(|| place.options.data_dir.join("buckets"));
    let shown = path.display();
    if !path.exists() {
        return Finding::good(format!(
            "{shown} is not there yet: the first start makes it"
        ));
    }
    match std::fs::read_dir(&path) {
        Ok(_) => Finding::good(format!("buckets are directories in {shown}")),
        Err(error) => Finding::bad(
            format!("{shown} can't be read: {error}"),
            "name another objects.path, or give the directory to the service's user",
        ),
    }
}

/// Whether the store answers and takes the access key, about a bucket that nobody has.
async fn reach(store: &dyn Objects, endpoint: Option<&str>) -> Finding {
    let shown = endpoint.unwrap_or_default();
    match look(store, &format!("calotype-doctor-{}", fresh_name())).await {
        Ok(()) => Finding::good(format!("the store at {shown} answers")),
        Err(error) if error.code() == Some(ImsCode::IMG_0069) => {
            Finding::good(format!("the store at {shown} answers"))
        }
        Err(error) => bad(format!("the store at {shown}: {}", error.chain())),
    }
}

/// Whether a bucket that projects are given is open to the service.
async fn bucket(store: &dyn Objects, name: &str) -> Finding {
    match look(store, name).await {
        Ok(()) => Finding::good(format!("the bucket {name} can be listed")),
        Err(error) => bad(format!(
            "the bucket {name} can't be listed: {}",
            error.chain()
        )),
    }
}

fn bad(says: String) -> Finding {
    let mend = mend_of(&says, MEND_BUCKETS);
    Finding::bad(says, mend)
}

/// Looks for an object that nobody has. That it is missing can be known only where the bucket can be listed.
async fn look(store: &dyn Objects, bucket: &str) -> Result<(), Error> {
    let address = ObjectAddress::parse(&format!("{bucket}:calotype-doctor-{}", fresh_name()))?;
    match store.look(&address).await {
        Err(error) if error.code() != Some(ImsCode::IMG_0057) => Err(error),
        _ => Ok(()),
    }
}

/// Whether customers' keys in a KMS can be asked for.
pub(super) async fn customers_kms(place: &Place) -> Vec<Finding> {
    let Some(section) = &place.options.config.keys.kms else {
        return Vec::new();
    };
    let entropy = entropy();
    let clock = place.clock();
    let probed = async {
        let kms = kms(section, &entropy, &clock)?;
        kms.probe()
            .await
            .map_err(failed("the KMS does not take the service"))
    };
    vec![match probed.await {
        Ok(()) => Finding::good("the KMS knows the service"),
        Err(failure) => Finding::bad(
            failure.to_string(),
            "mend [keys.kms], or the service's user there: docs/key-services.md",
        ),
    }]
}

/// Whether customers' keys in Barbican can be asked for.
pub(super) async fn barbicans_keys(place: &Place) -> Vec<Finding> {
    let Some(section) = &place.options.config.keys.barbican else {
        return Vec::new();
    };
    let entropy = entropy();
    let clock = place.clock();
    let asked = match barbican(section, &entropy, &clock) {
        Ok(barbican) => barbican.meet().await,
        Err(failure) => {
            let mend = "mend [keys.barbican]: docs/key-services.md";
            return vec![Finding::bad(failure.to_string(), mend)];
        }
    };
    vec![match asked {
        Ok(url) => Finding::good(format!("the Barbican at {url} answers")),
        Err(unmet) => barbican_finding(unmet),
    }]
}

fn barbican_finding(unmet: Unmet) -> Finding {
    let (part, error, mend) = match unmet {
        Unmet::Login(error) => (
            "the service can't log in for Barbican",
            error,
            "mend [keys.barbican.login], or the service's user at Keystone: docs/key-services.md",
        ),
        Unmet::Place(error) => (
            "Barbican is not found",
            error,
            "give Keystone's catalog a key-manager of this region and interface, or set keys.barbican.endpoint",
        ),
        Unmet::Answer(error) => (
            "Barbican does not answer as one",
            error,
            "mend keys.barbican.endpoint or the catalog's, the way there, or Barbican itself: docs/key-services.md",
        ),
    };
    let failure: Failure = failed(part)(error);
    Finding::bad(failure.to_string(), mend)
}
