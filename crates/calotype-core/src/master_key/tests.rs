//! Every state of a key, and every change.

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_000_000);

fn key(state: KeyState, rotated: bool) -> MasterKeyRecord {
    MasterKeyRecord {
        id: uuid::Uuid::from_u128(1).into(),
        project: "p1".parse().unwrap(),
        domain: "default".parse().unwrap(),
        alias: "a".parse().unwrap(),
        description: String::new(),
        realm: "r".to_owned(),
        enterprise_project: EnterpriseProjectId::Default,
        state,
        version: 1,
        created_at: NOW,
        deletion_at: (state == KeyState::PendingDeletion).then_some(NOW),
        rotation: rotated.then_some(Rotation {
            days: 365,
            since: NOW,
        }),
        rotated_at: None,
        rotations: 0,
    }
}

/// What a change leads to: the state, or the code's number.
fn outcome(state: KeyState, rotated: bool, change: &KeyChange) -> String {
    let mut key = key(state, rotated);
    let before = key.clone();
    match key.apply(change, NOW) {
        Ok(()) => key.state.to_string(),
        Err(error) => {
            assert_eq!(key, before, "a refusal changes nothing");
            error.kms_code().unwrap().to_string()
        }
    }
}

#[test]
fn each_change_leads_where_the_documents_say_in_each_state() {
    let states = [
        KeyState::Enabled,
        KeyState::Disabled,
        KeyState::PendingDeletion,
    ];
    let table: [(KeyChange, bool, [&str; 3]); 12] = [
        (
            KeyChange::Enable,
            false,
            ["KMS.1201", "enabled", "KMS.1201"],
        ),
        (
            KeyChange::Disable,
            false,
            ["disabled", "KMS.1301", "KMS.1301"],
        ),
        (
            KeyChange::ScheduleDeletion(7),
            false,
            ["pending", "pending", "KMS.1402"],
        ),
        (
            KeyChange::CancelDeletion,
            false,
            ["KMS.1501", "KMS.1501", "disabled"],
        ),
        (
            KeyChange::Alias("b".parse().unwrap()),
            false,
            ["enabled", "disabled", "KMS.0210"],
        ),
        (
            KeyChange::Description("d".to_owned()),
            false,
            ["enabled", "disabled", "KMS.0210"],
        ),
        (
            KeyChange::EnableRotation,
            false,
            ["enabled", "disabled", "KMS.0210"],
        ),
        (
            KeyChange::EnableRotation,
            true,
            ["KMS.2901", "KMS.2901", "KMS.0210"],
        ),
        (
            KeyChange::DisableRotation,
            true,
            ["enabled", "disabled", "pending"],
        ),
        (
            KeyChange::DisableRotation,
            false,
            ["KMS.0313", "KMS.0313", "KMS.0313"],
        ),
        (
            KeyChange::RotationDays(30),
            true,
            ["enabled", "disabled", "KMS.0210"],
        ),
        (
            KeyChange::RotationDays(30),
            false,
            ["KMS.0313", "KMS.0313", "KMS.0210"],
        ),
    ];
    for (change, rotated, wanted) in table {
        for (state, wanted) in states.into_iter().zip(wanted) {
            assert_eq!(
                outcome(state, rotated, &change),
                wanted,
                "{change:?} in {state}, rotated: {rotated}"
            );
        }
    }
}

#[test]
fn a_scheduled_deletion_has_its_time_until_it_is_cancelled() {
    let mut key = key(KeyState::Enabled, false);
    key.apply(&KeyChange::ScheduleDeletion(7), NOW).unwrap();
    assert_eq!(key.deletion_at, Some(NOW.plus(7 * DAY)));
    key.apply(&KeyChange::CancelDeletion, NOW).unwrap();
    assert_eq!((key.state, key.deletion_at), (KeyState::Disabled, None));
}

#[test]
fn an_alias_is_a_plain_word_that_is_no_services() {
    for good in ["a", "Z:9/_-", "ims/default2", &"x".repeat(255)] {
        assert_eq!(good.parse::<KeyAlias>().unwrap().as_str(), good);
    }
    for bad in [
        "",
        "a b",
        "ä",
        "a.b",
        "ims/default",
        "/default",
        &"x".repeat(256),
    ] {
        let refused = bad.parse::<KeyAlias>().unwrap_err();
        assert_eq!(refused.kms_code(), Some(KmsCode::KMS_1101), "{bad}");
    }
}

#[test]
fn a_grant_is_for_something_known_and_not_for_granting_alone() {
    let code = |words: &[&str]| {
        let operations = granted_operations(words.iter().copied());
        operations.map_err(|error| error.kms_code().unwrap())
    };
    assert_eq!(code(&[]), Err(KmsCode::KMS_0204));
    assert_eq!(code(&["decrypt-data-key"]), Err(KmsCode::KMS_0308));
    assert_eq!(
        code(&["create-grant", "create-grant"]),
        Err(KmsCode::KMS_2401)
    );
    assert_eq!(
        code(&["describe-key", "create-grant", "describe-key"]),
        Ok(vec![KeyOperation::DescribeKey, KeyOperation::CreateGrant])
    );
}

#[test]
fn a_grants_id_is_64_hexadecimal_digits() {
    let id: GrantId = "AB".repeat(32).parse().unwrap();
    assert_eq!(id.as_str(), "ab".repeat(32));
    for bad in ["", &"a".repeat(63), &"g".repeat(64)] {
        let refused = bad.parse::<GrantId>().unwrap_err();
        assert_eq!(refused.kms_code(), Some(KmsCode::KMS_2501));
    }
}
