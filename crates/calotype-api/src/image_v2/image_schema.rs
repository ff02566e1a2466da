//! The JSON schema of an image, against which glanceclient checks what its user types.

use calotype_core::image::{CONTAINER_FORMATS, DISK_FORMATS, ImageStatus, Visibility};
use serde_json::{Map, Value, json};

/// A UUID, as Glance's schemas have it.
pub(super) const UUID_PATTERN: &str =
    "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$";

/// The schema.
pub(super) fn image_schema() -> Value {
    let mut properties = Map::new();
    properties.extend(members(identity()));
    properties.extend(members(state()));
    properties.extend(members(bytes()));
    properties.extend(members(links()));
    properties.extend(members(well_known()));
    json!({
        "name": "image",
        "properties": properties,
        "additionalProperties": { "type": "string" },
        "links": [
            { "rel": "self", "href": "{self}" },
            { "rel": "enclosure", "href": "{file}" },
            { "rel": "describedby", "href": "{schema}" },
        ],
    })
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn identity() -> Value {
    let visibilities: Vec<_> = Visibility::ALL.iter().map(|word| word.as_str()).collect();
    json!({
        "id": {
            "type": "string", "pattern": UUID_PATTERN,
            "description": "The image's id. It may be chosen when the image is made, and is never used again.",
        },
        "name": {
            "type": ["null", "string"], "maxLength": 255,
            "description": "The image's name.",
        },
        "owner": {
            "type": ["null", "string"], "maxLength": 255,
            "description": "The project that the image belongs to.",
        },
        "visibility": {
            "type": "string", "enum": visibilities,
            "description": "Who can see the image.",
        },
        "tags": {
            "type": "array", "items": { "type": "string", "maxLength": 255 },
            "description": "The image's tags.",
        },
    })
}

fn state() -> Value {
    let statuses: Vec<_> = ImageStatus::ALL.iter().map(|word| word.as_str()).collect();
    json!({
        "status": {
            "type": "string", "readOnly": true, "enum": statuses,
            "description": "Where the image is in its life.",
        },
        "protected": {
            "type": "boolean",
            "description": "Whether deleting the image is refused.",
        },
        "os_hidden": {
            "type": "boolean",
            "description": "Whether lists leave the image out unless they are asked for it.",
        },
        "min_ram": {
            "type": "integer", "minimum": 0,
            "description": "MiB of memory that a server needs to run the image.",
        },
        "min_disk": {
            "type": "integer", "minimum": 0,
            "description": "GiB of disk that a server needs to hold the image.",
        },
        "created_at": {
            "type": "string", "readOnly": true,
            "description": "When the image was made.",
        },
        "updated_at": {
            "type": "string", "readOnly": true,
            "description": "When the image's record last changed.",
        },
    })
}

fn bytes() -> Value {
    json!({
        "stores": {
            "type": "string", "readOnly": true,
            "description": "The store of the image's bytes, where there are several.",
        },
        "container_format": {
            "type": ["null", "string"], "enum": null_or(CONTAINER_FORMATS),
            "description": "What wraps the image's bytes.",
        },
        "disk_format": {
            "type": ["null", "string"], "enum": null_or(DISK_FORMATS),
            "description": "The format of the image's bytes.",
        },
        "size": {
            "type": ["null", "integer"], "readOnly": true,
            "description": "How many bytes the image has.",
        },
        "virtual_size": {
            "type": ["null", "integer"], "readOnly": true,
            "description": "How many bytes the disk in the image has.",
        },
        "checksum": {
            "type": ["null", "string"], "readOnly": true, "maxLength": 32,
            "description": "The MD5 of the image's bytes, in hexadecimal.",
        },
        "os_hash_algo": {
            "type": ["null", "string"], "readOnly": true, "maxLength": 64,
            "description": "The algorithm of os_hash_value.",
        },
        "os_hash_value": {
            "type": ["null", "string"], "readOnly": true, "maxLength": 128,
            "description": "The digest of the image's bytes, in hexadecimal.",
        },
    })
}

fn links() -> Value {
    json!({
        "self": {
            "type": "string", "readOnly": true,
            "description": "Where the image's record is.",
        },
        "file": {
            "type": "string", "readOnly": true,
            "description": "Where the image's bytes are.",
        },
        "schema": {
            "type": "string", "readOnly": true,
            "description": "Where this schema is.",
        },
    })
}

/// Free attributes that OpenStack's services give a meaning.
fn well_known() -> Value {
    json!({
        "architecture": {
            "type": "string", "is_base": false,
            "description": "The processor that the image is made for.",
        },
        "os_distro": {
            "type": "string", "is_base": false,
            "description": "The distribution of the image's operating system.",
        },
        "os_version": {
            "type": "string", "is_base": false,
            "description": "The version of the image's operating system.",
        },
        "instance_uuid": {
            "type": "string", "is_base": false,
            "description": "The server that the image was made from.",
        },
        "kernel_id": {
            "type": ["null", "string"], "is_base": false, "pattern": UUID_PATTERN,
            "description": "The image of the kernel that an AMI boots with.",
        },
        "ramdisk_id": {
            "type": ["null", "string"], "is_base": false, "pattern": UUID_PATTERN,
            "description": "The image of the ramdisk that an AMI boots with.",
        },
    })
}

fn null_or(words: &[&str]) -> Vec<Value> {
    let words = words.iter().map(|word| json!(word));
    std::iter::once(Value::Null).chain(words).collect()
}
