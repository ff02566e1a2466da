//! Hostile VMDKs: sparse and streamed ones, and descriptors.

use super::super::samples::*;
use super::Hostile;

pub(super) fn vmdks() -> Vec<Hostile> {
    const TRUNCATED: &str = "The vmdk image ends before what its header promises.";
    const PARENT: &str = "The image refers to a parent disk.";
    const EXTENT: &str = "The image refers to an extent outside the image.";
    const CONTRADICTS: &str = "The vmdk image's descriptor contradicts itself.";
    const NOT_UNDERSTOOD: &str = "The vmdk image's descriptor is not understood.";
    let v = |parts: &[(usize, &[u8])]| with(vmdk(), parts);
    let d = |from: &str, to: &str| vmdk_of(&DESCRIPTOR.replace(from, to));
    let plus = |line: &str| vmdk_of(&format!("{DESCRIPTOR}{line}\n"));
    let flat = DESCRIPTOR
        .replace("monolithicSparse", "monolithicFlat")
        .replace("SPARSE \"disk.vmdk\"", "FLAT \"/etc/passwd\" 0");
    let untitled = flat.replace("# Disk DescriptorFile", "# a comment\n\n");
    let esx = with(vec![0; 4096], &[(0, b"COWD")]);
    vec![
        (
            "a descriptor alone",
            flat.into_bytes(),
            "The image refers to the extents",
        ),
        (
            "a descriptor without its title",
            untitled.into_bytes(),
            "The image refers to the extents",
        ),
        ("an extent of ESX", esx, "The image refers to the extents"),
        (
            "a parent",
            d("parentCID=ffffffff", "parentCID=12345678"),
            PARENT,
        ),
        (
            "a parent's name",
            plus("parentFileNameHint=\"/etc/passwd\""),
            PARENT,
        ),
        ("a parent's id", plus("ddb.uuid.parent = \"1234\""), PARENT),
        (
            "a list of changes",
            plus("changeTrackPath=\"/etc/passwd\""),
            "The image refers to a file of changes.",
        ),
        ("a path", d("disk.vmdk", "/etc/passwd"), EXTENT),
        ("a path of Windows", d("disk.vmdk", "x\\secret"), EXTENT),
        ("a device", d("disk.vmdk", "\\\\.\\PhysicalDrive0"), EXTENT),
        ("a directory above", d("disk.vmdk", ".."), EXTENT),
        ("a protocol", d("disk.vmdk", "nbd:unix:x"), EXTENT),
        ("no name", d("disk.vmdk", ""), EXTENT),
        ("a flat extent", d("SPARSE", "FLAT"), EXTENT),
        ("a raw device's extent", d("SPARSE", "VMFSRDM"), EXTENT),
        (
            "several files",
            d("monolithicSparse", "twoGbMaxExtentSparse"),
            "The image refers to the files",
        ),
        (
            "two extents",
            plus("RW 256 SPARSE \"other.vmdk\""),
            CONTRADICTS,
        ),
        (
            "two kinds",
            plus("createType=\"streamOptimized\""),
            CONTRADICTS,
        ),
        ("two parents", plus("parentCID=ffffffff"), CONTRADICTS),
        (
            "an extent larger than the disk",
            d("RW 256", "RW 257"),
            NOT_UNDERSTOOD,
        ),
        ("an unknown line", plus("no such line"), NOT_UNDERSTOOD),
        ("an unknown key", plus("digestFile=\"x\""), NOT_UNDERSTOOD),
        (
            "no kind",
            d("createType=\"monolithicSparse\"\n", ""),
            "The vmdk image's descriptor is not whole.",
        ),
        (
            "an empty descriptor",
            vmdk_of(&"\0".repeat(DESCRIPTOR.len())),
            "The vmdk image's descriptor is not whole.",
        ),
        (
            "no text",
            v(&[(520, &[0xff])]),
            "The vmdk image's descriptor is no text.",
        ),
        (
            "no size, so that extents are opened",
            v(&[(12, &le64(0))]),
            "The image refers to extents",
        ),
        (
            "an absurd size",
            v(&[(12, &le64(1 << 60))]),
            "The image describes a disk of",
        ),
        ("version 4", v(&[(4, &le32(4))]), "Only versions 1 to 3"),
        (
            "a descriptor elsewhere",
            v(&[(28, &le64(2))]),
            "The vmdk image has no descriptor",
        ),
        (
            "a descriptor too large",
            v(&[(36, &le64(1 << 32))]),
            "The vmdk image's descriptor has no",
        ),
        (
            "a grain of no size",
            v(&[(20, &le64(0))]),
            "The vmdk image's tables",
        ),
        (
            "a table of no size",
            v(&[(44, &le32(0))]),
            "The vmdk image's tables",
        ),
        (
            "sent as a text",
            v(&[(73, b"\n  \n")]),
            "The header of the vmdk image is damaged.",
        ),
        (
            "a directory in the header",
            v(&[(56, &le64(0))]),
            "A table of the vmdk image",
        ),
        (
            "a directory behind the end",
            v(&[(56, &le64(1 << 40))]),
            TRUNCATED,
        ),
        (
            "a spare directory behind the end",
            v(&[(8, &le32(3)), (48, &le64(1 << 40))]),
            TRUNCATED,
        ),
        (
            "a table behind the end",
            v(&[(4 * 512 + 4, &[0xff; 4])]),
            TRUNCATED,
        ),
        (
            "a grain behind the end",
            v(&[(5 * 512 + 4, &[0xff; 4])]),
            TRUNCATED,
        ),
        ("cut in its data", vmdk()[..4096].to_vec(), TRUNCATED),
        ("cut in its descriptor", vmdk()[..1024].to_vec(), TRUNCATED),
        (
            "cut in its header",
            vmdk()[..40].to_vec(),
            "The vmdk image ends before its header does.",
        ),
        (
            "a table twice",
            v(&[(4 * 512 + 4, &le32(5))]),
            "Tables of the vmdk image are shared.",
        ),
        (
            "a grain many times",
            v(&[(5 * 512, &le32(8).repeat(16))]),
            "The vmdk image describes more",
        ),
    ]
}

pub(super) fn streams() -> Vec<Hostile> {
    const BOMB: &str = "The vmdk image describes more data than it has.";
    let s = |parts: &[(usize, &[u8])]| with(vmdk_stream(), parts);
    let stream = vmdk_stream();
    let grain = &stream[4 * 512..5 * 512];
    let many = [&stream[..4 * 512], &grain.repeat(33), &stream[5 * 512..]].concat();
    vec![
        (
            "a footer that names another descriptor",
            s(&[(10 * 512 + 36, &le64(2))]),
            "The vmdk image's footer",
        ),
        (
            "a footer of another size",
            s(&[(10 * 512 + 12, &le64(9999))]),
            "The vmdk image's footer",
        ),
        (
            "a footer that names another footer",
            s(&[(10 * 512 + 56, &[0xff; 8])]),
            "The vmdk image's footer",
        ),
        (
            "a footer that names extents",
            s(&[(10 * 512 + 12, &le64(0))]),
            "The vmdk image's footer",
        ),
        (
            "a footer without its magic",
            s(&[(10 * 512, &[0])]),
            "The vmdk image's footer",
        ),
        (
            "a footer without its marker",
            s(&[(9 * 512 + 12, &le32(1))]),
            "The vmdk image ends",
        ),
        (
            "a directory behind the end",
            s(&[(10 * 512 + 56, &le64(1 << 40))]),
            "The vmdk image ends",
        ),
        ("a grain of 4 GiB", s(&[(4 * 512 + 8, &[0xff; 4])]), BOMB),
        (
            "a grain outside of the disk",
            s(&[(4 * 512, &le64(256))]),
            BOMB,
        ),
        ("more grains than the disk has", many, BOMB),
        (
            "an unknown marker",
            s(&[(5 * 512 + 12, &le32(9))]),
            "The vmdk image has an unknown marker.",
        ),
        (
            "a marker that counts too far",
            s(&[(5 * 512, &[0xff; 8])]),
            "The vmdk image ends",
        ),
        (
            "bytes behind the end",
            s(&[(13 * 512, &[0; 512])]),
            "The vmdk image",
        ),
        (
            "grains in front of the descriptor",
            s(&[(64, &le64(1))]),
            "A table of the vmdk image",
        ),
        ("not compressed", s(&[(10, &[2])]), "The vmdk image's flags"),
        (
            "cut in a grain",
            stream[..4 * 512 + 50].to_vec(),
            "The vmdk image ends",
        ),
        (
            "cut before its footer",
            stream[..9 * 512].to_vec(),
            "The vmdk image ends",
        ),
    ]
}
