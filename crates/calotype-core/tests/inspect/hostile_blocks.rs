//! Hostile VHDs, VHDXs and VDIs.

use super::super::samples::*;
use super::Hostile;

pub(super) fn vhds() -> Vec<Hostile> {
    const PARENT: &str = "The image refers to a parent disk.";
    let v = |parts: &[(usize, &[u8])]| with(vhd(), parts);
    let header = |parts: &[(usize, &[u8])]| {
        let header = with(vhd()[512..1536].to_vec(), parts);
        v(&[(512, &vhd_summed(header, 36))])
    };
    let fixed = |footer: &[u8]| [&[7; 2048][..], footer].concat();
    let flipped = with(vhd_footer(2, 2048), &[(100, &[1])]);
    vec![
        (
            "a parent",
            [&vhd_footer(4, 2048)[..], &[7; 5000]].concat(),
            PARENT,
        ),
        ("a parent's id", header(&[(40, &[1])]), PARENT),
        ("a parent's name", header(&[(64, b"\0x")]), PARENT),
        ("a parent's locator", header(&[(576, b"W2ku")]), PARENT),
        (
            "a damaged header",
            v(&[(600, &[1])]),
            "The header of the vhd image is damaged.",
        ),
        (
            "a damaged footer in front",
            v(&[(100, &[1])]),
            "The footer of the vhd image is damaged.",
        ),
        (
            "a damaged footer behind",
            v(&[(3172, &[1])]),
            "The footer of the vhd image is damaged.",
        ),
        (
            "another footer behind",
            v(&[(3072, &vhd_footer(3, 4096))]),
            "The vhd image's two footers",
        ),
        (
            "a table too small",
            header(&[(28, &be32(3))]),
            "The vhd image's table",
        ),
        (
            "a table in the footer",
            header(&[(16, &be64(0))]),
            "The vhd image's table",
        ),
        (
            "a table at the end of numbers",
            header(&[(16, &[0xff; 8])]),
            "The vhd image's table",
        ),
        (
            "a block of no size",
            header(&[(32, &be32(0))]),
            "The vhd image's blocks",
        ),
        (
            "an absurd size",
            with(vhd(), &[(0, &vhd_footer(3, 1 << 60))]),
            "The image describes a disk of",
        ),
        (
            "a block behind the end",
            v(&[(1540, &be32(4096))]),
            "The vhd image ends before",
        ),
        (
            "a table behind the end",
            header(&[(28, &be32(1 << 20))]),
            "The vhd image ends before",
        ),
        (
            "cut in its data",
            vhd()[..2600].to_vec(),
            "The vhd image ends before",
        ),
        (
            "a block many times",
            header_of_many(),
            "The vhd image describes more data",
        ),
        (
            "a fixed disk that begins with its footer",
            [vhd_footer(2, 2048), vec![7; 5000]].concat(),
            "The vhd image begins",
        ),
        (
            "a fixed disk that is cut",
            fixed(&vhd_footer(2, 4096)),
            "The vhd image ends before",
        ),
        (
            "a fixed disk with a damaged footer",
            fixed(&flipped),
            "The footer of the vhd image is damaged.",
        ),
        (
            "a dynamic disk without its beginning",
            fixed(&vhd_footer(3, 2048)),
            "The vhd image has lost",
        ),
    ]
}

/// A table of 64 entries that all are one block.
fn header_of_many() -> Vec<u8> {
    let header = with(vhd()[512..1536].to_vec(), &[(28, &be32(64))]);
    let parts = [
        (512, &vhd_summed(header, 36)[..]),
        (1536, &be32(4).repeat(64)),
    ];
    with(vhd(), &parts)
}

pub(super) fn vhdxs() -> Vec<Hostile> {
    const PARENT_DISK: &str = "The image refers to a parent disk.";
    const METADATA: &str = "The metadata of the vhdx image is damaged.";
    let v = |parts: &[(usize, &[u8])]| vhdx_summed(with(vhdx(), parts));
    let entry = |number: usize| VHDX_METADATA + 32 + number * 32;
    let both = |at: usize, part: &[u8]| v(&[(196_608 + at, part), (262_144 + at, part)]);
    let fourth = |id: u128, required: u32| {
        v(&[
            (VHDX_METADATA + 10, &[4, 0]),
            (entry(3), &guid(id)),
            (entry(3) + 24, &le32(required)),
        ])
    };
    vec![
        ("a parent", v(&[(VHDX_ITEMS + 4, &[2])]), PARENT_DISK),
        ("a parent's locator", fourth(PARENT, 4), PARENT_DISK),
        (
            "a block that is partly a parent's",
            v(&[((1 << 20) + 8, &[7])]),
            PARENT_DISK,
        ),
        (
            "a log to be replayed",
            v(&[(131_072 + 48, &[1])]),
            "The vhdx image was not closed",
        ),
        (
            "damaged headers",
            with(vhdx(), &[(65_600, &[1]), (131_200, &[1])]),
            "The headers of the vhdx image",
        ),
        (
            "damaged regions",
            with(vhdx(), &[(200_000, &[1])]),
            "The region tables of the vhdx image",
        ),
        (
            "two different tables of regions",
            v(&[(262_144 + 64, &le64(3 << 20))]),
            "The region tables of",
        ),
        (
            "regions that overlap",
            both(64, &le64(1 << 20)),
            "The region tables of",
        ),
        (
            "a region in the header",
            both(32, &le64(0)),
            "The region tables of",
        ),
        (
            "too many regions",
            both(8, &le32(2048)),
            "The region tables of",
        ),
        ("no metadata", both(8, &le32(1)), "The region tables of"),
        (
            "an unknown region",
            both(48, &guid(1)),
            "The vhdx image needs an unknown region.",
        ),
        (
            "unknown metadata",
            fourth(1, 4),
            "The vhdx image needs unknown metadata.",
        ),
        (
            "a size twice",
            fourth(0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8, 4),
            METADATA,
        ),
        (
            "metadata without its name",
            v(&[(VHDX_METADATA, &[0])]),
            METADATA,
        ),
        (
            "too much metadata",
            v(&[(VHDX_METADATA + 10, &[0, 8])]),
            METADATA,
        ),
        ("no size", v(&[(VHDX_METADATA + 10, &[1, 0])]), METADATA),
        (
            "an item outside",
            v(&[(entry(1) + 16, &[0xff; 4])]),
            "The vhdx image ends before its header does.",
        ),
        ("a block of no size", v(&[(VHDX_ITEMS, &le32(0))]), METADATA),
        (
            "an absurd size",
            v(&[(VHDX_ITEMS + 8, &le64(1 << 60))]),
            "The image describes a disk of",
        ),
        (
            "a table too small",
            v(&[(VHDX_ITEMS + 8, &le64(1 << 45))]),
            "The vhdx image's table",
        ),
        (
            "version 2",
            v(&[(131_072 + 66, &[2])]),
            "Only version 1 of VHDX",
        ),
        (
            "a block behind the end",
            v(&[((1 << 20) + 8, &le64(1 << 40 | 6))]),
            "The vhdx image ends before what",
        ),
        (
            "a block many times",
            v(&[(1 << 20, &le64(3 << 20 | 6).repeat(16))]),
            "The vhdx image describes more",
        ),
        (
            "a region behind the end",
            both(64, &le64(1 << 40)),
            "The vhdx image ends before what",
        ),
        (
            "cut in its data",
            vhdx()[..3 << 20].to_vec(),
            "The vhdx image ends before what",
        ),
        (
            "cut in its headers",
            vhdx()[..200_000].to_vec(),
            "The vhdx image ends before what",
        ),
    ]
}

pub(super) fn vdis() -> Vec<Hostile> {
    let v = |parts: &[(usize, &[u8])]| with(vdi(), parts);
    vec![
        (
            "a parent",
            v(&[(0x4c, &le32(4))]),
            "The image refers to a parent disk.",
        ),
        (
            "an undo image",
            v(&[(0x4c, &le32(3))]),
            "The image refers to a parent disk.",
        ),
        (
            "a parent's id",
            v(&[(0x1b8, &[1])]),
            "The image refers to a parent disk.",
        ),
        (
            "a link",
            v(&[(0x1a8, &[1])]),
            "The image refers to a parent disk.",
        ),
        ("version 0", v(&[(0x44, &le32(1))]), "Only version 1 of VDI"),
        (
            "a block of no size",
            v(&[(0x178, &le32(0))]),
            "The vdi image's blocks",
        ),
        (
            "an absurd size",
            v(&[(0x170, &le64(1 << 60))]),
            "The image describes a disk of",
        ),
        (
            "a map too small",
            v(&[(0x180, &le32(3))]),
            "The vdi image's map",
        ),
        (
            "a map in the header",
            v(&[(0x154, &le32(0))]),
            "The vdi image's map",
        ),
        (
            "a map in the data",
            v(&[(0x158, &le32(520))]),
            "The vdi image's map",
        ),
        (
            "a block behind the end",
            v(&[(520, &le32(9))]),
            "The vdi image ends before",
        ),
        (
            "more blocks than bytes",
            v(&[(0x184, &le32(4))]),
            "The vdi image ends before",
        ),
        (
            "a block many times",
            v(&[(512, &[0; 16])]),
            "The vdi image describes more",
        ),
        (
            "cut in its data",
            vdi()[..1200].to_vec(),
            "The vdi image ends before",
        ),
        (
            "cut in its header",
            vdi()[..0x100].to_vec(),
            "The vdi image ends before its header does.",
        ),
    ]
}
