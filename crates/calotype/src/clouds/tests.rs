//! What the OpenStack tools would read from the same files and variables.

use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;

use super::*;

const FILE: &str = "\
clouds:
  one: &base
    auth:
      auth_url: http://one:5000/v3/
      username: ann
      project_name: red
      user_domain_name: Default
      project_domain_name: Default
    region_name: r1
  two:
    <<: *base
    auth:
      auth_url: http://two:5000
      user_id: 12345
      password: 007
      project_id: abc
    interface: internalURL
    verify: false
    image_endpoint_override: http://two:9292
";

struct Place(tempfile::TempDir);

impl Place {
    fn with(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(directory)
    }

    fn find(&self, cloud: Option<&str>, environment: &Environment) -> Result<Cloud, Failure> {
        find(&Choice { cloud }, environment, self.0.path())
    }
}

fn password(cloud: &Cloud) -> String {
    match &cloud.login {
        Login::Password { password, .. } => password.expose_secret().to_owned(),
        Login::Token(token) => format!("token {}", token.expose_secret()),
    }
}

#[test]
fn the_file_is_merged_with_secure_yaml_beside_it() {
    let place = Place::with(&[
        ("clouds.yaml", FILE),
        (
            "secure.yaml",
            "clouds:\n  one:\n    auth:\n      password: 'geheim'\n",
        ),
    ]);
    let cloud = place.find(Some("one"), &Environment::default()).unwrap();
    assert_eq!(cloud.auth_url, "http://one:5000/v3");
    assert_eq!(password(&cloud), "geheim");
    assert_eq!(cloud.region.as_deref(), Some("r1"));
    assert_eq!(
        cloud.scope,
        Scope::Project(Named::Name {
            name: "red".into(),
            domain: Domain::Name("Default".into())
        })
    );
}

#[test]
fn ids_interfaces_and_overrides_are_understood() {
    let place = Place::with(&[("clouds.yaml", FILE)]);
    let cloud = place
        .find(None, &Environment::from([("OS_CLOUD", "two")]))
        .unwrap();
    assert!(matches!(&cloud.login, Login::Password { user: Named::Id(id), .. } if id == "12345"));
    assert_eq!(cloud.scope, Scope::Project(Named::Id("abc".into())));
    assert_eq!(cloud.interface, "internal");
    assert_eq!(cloud.image_endpoint.as_deref(), Some("http://two:9292"));
    assert!(!cloud.verify);
}

#[test]
fn variables_override_the_file() {
    let place = Place::with(&[("clouds.yaml", FILE)]);
    let environment = Environment::from([
        ("OS_CLOUD", "two"),
        ("OS_PASSWORD", "other"),
        ("OS_PROJECT_NAME", "blue"),
        ("OS_REGION_NAME", "r9"),
    ]);
    let cloud = place.find(None, &environment).unwrap();
    assert_eq!(password(&cloud), "other");
    assert_eq!(cloud.region.as_deref(), Some("r9"));
    assert_eq!(
        cloud.scope,
        Scope::Project(Named::Name {
            name: "blue".into(),
            domain: Domain::Id("default".into())
        })
    );
}

#[test]
fn variables_alone_are_enough() {
    let place = Place::with(&[]);
    let environment = Environment::from([
        ("OS_AUTH_URL", "http://k:5000"),
        ("OS_TOKEN", "t0"),
        ("OS_CLOUD", ""),
    ]);
    let cloud = place.find(None, &environment).unwrap();
    assert_eq!(password(&cloud), "token t0");
    assert_eq!(cloud.scope, Scope::Unsaid);
}

#[test]
fn the_flag_wins_over_the_variable_and_the_named_file_over_the_usual_ones() {
    let place = Place::with(&[("clouds.yaml", "clouds: {}\n"), ("else/mine.yaml", FILE)]);
    let file = place.0.path().join("else/mine.yaml");
    let environment = Environment::from([
        ("OS_CLIENT_CONFIG_FILE", file.to_str().unwrap()),
        ("OS_CLOUD", "absent"),
    ]);
    assert!(place.find(Some("two"), &environment).is_ok());
}

#[test]
fn what_is_missing_is_said() {
    let place = Place::with(&[("clouds.yaml", FILE)]);
    let none = Place::with(&[]);
    for (failure, part) in [
        (
            place.find(Some("three"), &Environment::default()),
            "no cloud \"three\", only: one, two",
        ),
        (
            place.find(None, &Environment::default()),
            "several clouds: one, two",
        ),
        (
            place.find(Some("one"), &Environment::default()),
            "no password",
        ),
        (none.find(None, &Environment::default()), "no auth_url"),
        (
            none.find(Some("x"), &Environment::default()),
            "there is no clouds.yaml",
        ),
    ] {
        let failure = failure.unwrap_err();
        assert!(failure.message.contains(part), "{failure}");
        assert_eq!(failure.exit, Exit::Usage);
    }
}

#[test]
fn broken_yaml_is_reported_by_line_without_quoting_it() {
    let place = Place::with(&[("clouds.yaml", "clouds:\n  one:\n    password: \"geheim\n")]);
    let failure = place
        .find(Some("one"), &Environment::default())
        .unwrap_err();
    assert!(failure.message.contains("no valid YAML"), "{failure}");
    assert!(!failure.to_string().contains("geheim"), "{failure}");
}

#[test]
fn the_written_file_is_private_and_is_read_back() {
    let place = Place::with(&[("calotype-data/x", "")]);
    let path = place.0.path().join("calotype-data/clouds.yaml");
    let users = FirstUsers {
        url: "http://127.0.0.1:9292".into(),
        region: "calotype".into(),
        demo_password: "pa\"ss: #1".to_owned().into(),
        admin_password: "other".to_owned().into(),
        demo_access_key: Some(("AK".into(), "SK".to_owned().into())),
    };
    write_clouds_yaml(&path, &users).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap());

    // No file elsewhere and no cloud named: the service's own file is found, as its first user.
    let environment = Environment::from([("HOME", "/nonexistent")]);
    let cloud = place.find(None, &environment).unwrap();
    assert_eq!(cloud.auth_url, "http://127.0.0.1:9292/identity/v3");
    assert_eq!(password(&cloud), "pa\"ss: #1");
    let admin = place
        .find(Some("calotype-admin"), &Environment::default())
        .unwrap();
    assert_eq!(password(&admin), "other");
}
