//! Images that must be refused, each with its reason.

mod hostile_blocks;
mod hostile_vmdks;

use super::samples::*;
use hostile_blocks::{vdis, vhds, vhdxs};
use hostile_vmdks::{streams, vmdks};

/// Every hostile image.
pub(crate) fn hostile() -> Vec<Sample> {
    let mut all = Vec::new();
    for (format, samples) in [
        ("qcow2", qcow2s()),
        ("vmdk", vmdks()),
        ("vmdk", streams()),
        ("vhd", vhds()),
        ("vhdx", vhdxs()),
        ("vdi", vdis()),
        ("gpt", gpts()),
        ("iso", isos()),
        ("luks", lukses()),
    ] {
        for (name, bytes, reason) in samples {
            all.push(sample(name, format, bytes, Err(reason)));
        }
    }
    all.extend(contradictions());
    all.extend(archives());
    all
}

/// A name, the bytes, and how the refusal begins.
type Hostile = (&'static str, Vec<u8>, &'static str);

fn qcow2s() -> Vec<Hostile> {
    const TRUNCATED: &str = "The qcow2 image ends before what its header promises.";
    const BOMB: &str = "The qcow2 image describes more data than it has.";
    let q = |parts: &[(usize, &[u8])]| with(qcow2(), parts);
    let short = |length: usize| qcow2()[..length].to_vec();
    let unknown = (4..64).map(|bit| {
        (
            "an unknown feature",
            q(&[(72, &be64(1 << bit))]),
            "The qcow2 image needs unknown features.",
        )
    });
    vec![
        (
            "a backing file",
            q(&[(8, &be64(0x180))]),
            "The image refers to a backing file.",
        ),
        (
            "a backing file's name",
            q(&[(16, &be32(9))]),
            "The image refers to a backing file.",
        ),
        (
            "a data file",
            q(&[(79, &[4])]),
            "The image refers to an external data file.",
        ),
        (
            "a raw data file",
            q(&[(95, &[2])]),
            "The image refers to an external data file.",
        ),
        (
            "a data file's name",
            q(&[(112, b"DATA")]),
            "The image refers to an external data file.",
        ),
        (
            "encrypted by AES",
            q(&[(32, &be32(1))]),
            "The qcow2 image is encrypted by itself",
        ),
        (
            "encrypted by LUKS",
            q(&[(32, &be32(2))]),
            "The qcow2 image is encrypted by itself",
        ),
        (
            "snapshots",
            q(&[(60, &be32(1))]),
            "The qcow2 image holds snapshots",
        ),
        ("version 1", q(&[(4, &be32(1))]), "Only versions 2 and 3"),
        ("version 4", q(&[(4, &be32(4))]), "Only versions 2 and 3"),
        (
            "clusters too large",
            q(&[(20, &be32(63))]),
            "The qcow2 image's clusters",
        ),
        (
            "clusters too small",
            q(&[(20, &be32(8))]),
            "The qcow2 image's clusters",
        ),
        (
            "an absurd size",
            q(&[(24, &be64(1 << 62))]),
            "The image describes a disk of 4.0 EiB",
        ),
        (
            "a first table too small",
            q(&[(36, &be32(1))]),
            "The qcow2 image's first table",
        ),
        (
            "a first table too large",
            q(&[(36, &[0xff; 4])]),
            "The qcow2 image's first table",
        ),
        (
            "a first table in the header",
            q(&[(40, &be64(0))]),
            "A table of the qcow2 image",
        ),
        (
            "a table between clusters",
            q(&[(40, &be64(1025))]),
            "A table of the qcow2 image",
        ),
        (
            "a table at the end of numbers",
            q(&[(40, &be64(u64::MAX - 511))]),
            TRUNCATED,
        ),
        (
            "tables that overlap",
            q(&[(40, &be64(512))]),
            "The tables of the qcow2 image overlap.",
        ),
        (
            "no counts",
            q(&[(56, &be32(0))]),
            "The qcow2 image's table of reference counts",
        ),
        (
            "too many counts",
            q(&[(56, &[0xff; 4])]),
            "The qcow2 image's table of reference counts",
        ),
        (
            "a first table behind the end",
            q(&[(40, &be64(1 << 40))]),
            TRUNCATED,
        ),
        (
            "counts behind the end",
            q(&[(48, &be64(1 << 40))]),
            TRUNCATED,
        ),
        (
            "a second table behind the end",
            q(&[(1032, &be64(1 << 40))]),
            TRUNCATED,
        ),
        (
            "data behind the end",
            q(&[(1552, &be64(1 << 40))]),
            TRUNCATED,
        ),
        (
            "compressed data behind the end",
            q(&[(1552, &be64(1 << 62 | 1 << 40))]),
            TRUNCATED,
        ),
        ("cut in its data", short(2560), TRUNCATED),
        ("cut in its second table", short(1600), TRUNCATED),
        ("cut in its first table", short(1030), TRUNCATED),
        (
            "cut in its header",
            short(80),
            "The qcow2 image ends before its header does.",
        ),
        (
            "a second table twice",
            q(&[(1032, &be64(1536))]),
            "Tables of the qcow2 image are shared.",
        ),
        (
            "data many times",
            q(&[(1536, &be64(2048).repeat(64))]),
            BOMB,
        ),
        (
            "a second table between clusters",
            q(&[(20, &be32(10)), (48, &be64(2048))]),
            "A table of the qcow2 image refers to the middle",
        ),
        (
            "an unknown compression",
            q(&[(79, &[8]), (104, &[2])]),
            "The qcow2 image's compression",
        ),
        (
            "a compression that is not announced",
            q(&[(104, &[1])]),
            "The qcow2 image's compression",
        ),
        (
            "an unknown extension",
            q(&[(112, b"EVIL")]),
            "The qcow2 image's header has an unknown",
        ),
        (
            "an extension without an end",
            q(&[(116, &[0xff; 4])]),
            "The qcow2 image's header has an extension",
        ),
        (
            "a header that overlaps itself",
            q(&[(100, &be32(8))]),
            "The qcow2 image's header has no valid",
        ),
    ]
    .into_iter()
    .chain(unknown)
    .collect()
}

fn gpts() -> Vec<Hostile> {
    let g = |parts: &[(usize, &[u8])]| with(gpt(), parts);
    let m = |parts: &[(usize, &[u8])]| with(mbr(), parts);
    let summed = |parts: &[(usize, &[u8])]| gpt_summed(with(gpt(), parts));
    let second = with(
        vec![0; 128],
        &[(0, b"a kind of system"), (32, &le64(8)), (40, &le64(20))],
    );
    let overlap = summed(&[(1024 + 128, &second), (62 * 512 + 128, &second)]);
    vec![
        (
            "an invalid boot flag",
            m(&[(462, &[1])]),
            "A partition of the disk has an invalid",
        ),
        (
            "no partitions",
            m(&[(450, &[0])]),
            "The disk has no partitions.",
        ),
        (
            "a partition behind the end",
            m(&[(458, &[0xff; 4])]),
            "The gpt image ends before",
        ),
        (
            "a GPT that is not the first",
            m(&[(462, &[0, 0, 2, 0, 0xee]), (470, &le32(1))]),
            "The disk has partitions beside",
        ),
        (
            "a GPT protected from elsewhere",
            g(&[(454, &le32(2))]),
            "The disk's GPT is protected wrongly.",
        ),
        (
            "a GPT that is not there",
            g(&[(512, &[0; 8])]),
            "The disk's GPT is not there.",
        ),
        (
            "a damaged header",
            g(&[(560, &[0xff])]),
            "The disk's GPT is damaged.",
        ),
        (
            "damaged entries",
            g(&[(1100, &[0xff])]),
            "The disk's GPT is damaged.",
        ),
        (
            "a damaged spare header",
            g(&[(63 * 512 + 60, &[0xff])]),
            "The disk's GPT is damaged.",
        ),
        (
            "a spare header of another disk",
            summed(&[(63 * 512 + 56, &[0])]),
            "The disk's two GPTs",
        ),
        (
            "partitions that overlap",
            overlap,
            "Partitions of the disk overlap",
        ),
        (
            "a partition outside",
            summed(&[(1024 + 40, &le64(62))]),
            "Partitions of the disk overlap",
        ),
        (
            "a table larger than any",
            summed(&[(512 + 80, &[0xff; 4])]),
            "The disk's GPT is larger",
        ),
        (
            "cut before its spare table",
            gpt()[..62 * 512].to_vec(),
            "The gpt image ends before",
        ),
    ]
}

fn isos() -> Vec<Hostile> {
    let damaged = with(iso(), &[(0x8000 + 84, &be32(18))]);
    let damaged_too = with(iso(), &[(0x8000 + 130, &[0, 0])]);
    vec![
        (
            "two sizes",
            damaged,
            "The descriptor of the iso image is damaged.",
        ),
        (
            "two lengths of a block",
            damaged_too,
            "The descriptor of the iso image is damaged.",
        ),
        (
            "cut in its volume",
            iso()[..34_000].to_vec(),
            "The iso image ends before",
        ),
    ]
}

fn lukses() -> Vec<Hostile> {
    let l = |parts: &[(usize, &[u8])]| with(luks(), parts);
    vec![
        ("LUKS 2", l(&[(7, &[2])]), "Only version 1 of LUKS"),
        (
            "a slot in no state",
            l(&[(256, &be32(7))]),
            "The header of the luks image",
        ),
        (
            "key material in the data",
            l(&[(252, &be32(4000))]),
            "The header of the luks image",
        ),
        (
            "a key of no size",
            l(&[(108, &be32(0))]),
            "The header of the luks image",
        ),
        (
            "its data elsewhere",
            l(&[(104, &be32(0))]),
            "The header of the luks image",
        ),
        (
            "cut before its data",
            luks()[..4000].to_vec(),
            "The luks image ends before",
        ),
        (
            "cut in its header",
            luks()[..500].to_vec(),
            "The luks image ends before its header does.",
        ),
    ]
}

/// Bytes in several formats, and in others than the declared one.
fn contradictions() -> Vec<Sample> {
    const SEVERAL: &str = "The image is in several formats at once (";
    let descriptor = &iso()[0x8000..0x8800];
    let table = &mbr()[446..512];
    let qed = with(vec![0; 4096], &[(0, b"QED\0")]);
    let and_footer = |mut bytes: Vec<u8>| {
        bytes.extend_from_slice(&vhd_footer(2, 512));
        bytes
    };
    let mut all = vec![
        ("qcow2", with(qcow2(), &[(0x8000, descriptor)]), SEVERAL),
        ("vmdk", with(vmdk(), &[(0x8000, descriptor)]), SEVERAL),
        ("iso", with(vhd(), &[(0x8000, descriptor)]), SEVERAL),
        ("qcow2", with(qcow2(), &[(446, table)]), SEVERAL),
        ("raw", with(vdi(), &[(0, b"QFI\xfb\0\0\0\x03")]), SEVERAL),
        ("qcow2", and_footer(qcow2()), SEVERAL),
        ("iso", and_footer(iso()), SEVERAL),
        ("raw", qed.clone(), "QED images are not accepted."),
        ("qed", qed, "QED images are not accepted."),
        (
            "raw",
            qcow2(),
            "Image content (qcow2) does not match its disk_format (raw).",
        ),
        (
            "raw",
            vhd_fixed(),
            "Image content (vhd) does not match its disk_format (raw).",
        ),
        (
            "gpt",
            and_footer(gpt()),
            "Image content (vhd) does not match its disk_format (gpt).",
        ),
        (
            "vhd",
            gpt(),
            "Image content (gpt) does not match its disk_format (vhd).",
        ),
        (
            "aki",
            vhdx(),
            "Image content (vhdx) does not match its disk_format (aki).",
        ),
        (
            "zvhd2",
            vdi(),
            "Image content (vdi) does not match its disk_format (zvhd2).",
        ),
        (
            "raw",
            ploop(),
            "Image content (ploop) does not match its disk_format (raw).",
        ),
        (
            "qcow",
            vec![7; 5000],
            "Image content (raw) does not match its disk_format (qcow).",
        ),
    ];
    for format in [
        "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "gpt", "luks", "ploop",
    ] {
        all.push((
            format,
            vec![7; 70_000],
            "Image content (raw) does not match",
        ));
        all.push((format, Vec::new(), "Image content (raw) does not match"));
    }
    let all = all.into_iter();
    all.map(|(format, bytes, reason)| sample("a contradiction", format, bytes, Err(reason)))
        .chain([in_container(
            "ovf",
            sample(
                "a contradiction",
                "vmdk",
                qcow2(),
                Err("Image content (qcow2)"),
            ),
        )])
        .collect()
}

fn archives() -> Vec<Sample> {
    const DESCRIPTION: (&str, &[u8]) = ("box.ovf", b"<Envelope/>");
    let evil = vmdk_of(&DESCRIPTOR.replace("disk.vmdk", "/etc/passwd"));
    let stream = vmdk_stream();
    let whole = ova(&[DESCRIPTION, ("disk.vmdk", &stream)]);
    let linked = [
        ova_header("box.ovf", 0, b'0'),
        ova_header("disk.vmdk", 0, b'2'),
    ]
    .concat();
    let many: Vec<String> = (0..300).map(|number| format!("{number}.txt")).collect();
    let many = many.iter().map(|name| (name.as_str(), &b""[..]));
    let many: Vec<_> = std::iter::once(DESCRIPTION).chain(many).collect();
    [
        (
            "no archive",
            vec![7; 5000],
            "Image content does not match its container_format",
        ),
        (
            "nothing",
            Vec::new(),
            "Image content does not match its container_format",
        ),
        (
            "no description",
            ova(&[("disk.vmdk", &stream)]),
            "The ova image's first member",
        ),
        (
            "two descriptions",
            ova(&[DESCRIPTION, ("other.ovf", b"")]),
            "The ova image's first member",
        ),
        (
            "a path",
            ova(&[DESCRIPTION, ("../disk.vmdk", &stream)]),
            "The ova image has a member in another",
        ),
        (
            "an absolute path",
            ova(&[DESCRIPTION, ("/etc/passwd", b"x")]),
            "The ova image has a member in another",
        ),
        (
            "a link",
            linked,
            "The ova image has a member that is no plain file.",
        ),
        (
            "one name twice",
            ova(&[DESCRIPTION, ("a.mf", b""), ("a.mf", b"")]),
            "The ova image has too many",
        ),
        ("too many members", ova(&many), "The ova image has too many"),
        (
            "a hostile disk",
            ova(&[DESCRIPTION, ("disk.vmdk", &evil)]),
            "The image refers to an extent",
        ),
        (
            "a disk under another name",
            ova(&[DESCRIPTION, ("readme.txt", &qcow2())]),
            "Image content (qcow2)",
        ),
        (
            "a cut disk",
            ova(&[DESCRIPTION, ("disk.vmdk", &stream[..3000])]),
            "The vmdk image ends before",
        ),
        (
            "a damaged header",
            with(whole.clone(), &[(1024, b"x")]),
            "Image content does not match",
        ),
        (
            "cut in a member",
            whole[..2000].to_vec(),
            "The ova image ends before",
        ),
        (
            "cut before its end",
            whole[..whole.len() - 1024].to_vec(),
            "The ova image ends before",
        ),
        (
            "bytes behind its end",
            [whole, vec![7; 512]].concat(),
            "The ova image goes on behind its end.",
        ),
    ]
    .into_iter()
    .map(|(name, bytes, reason)| in_container("ova", sample(name, "vmdk", bytes, Err(reason))))
    .collect()
}
