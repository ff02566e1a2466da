//! An upgrade without downtime: the nodes and workers of a server on engines are replaced one by one, under load.
//!
//! What is replaced is this version, too, unless `cargo xtask versions` built an older one: then both work on one database.

use calotype_tests::Engines;

use crate::engine_faults::{server, under_load};

#[test]
fn nodes_and_workers_are_replaced_one_by_one_and_nothing_that_was_acknowledged_is_lost() {
    let old = std::env::var_os("CALOTYPE_TEST_OLD_BIN");
    let mut server = server(Engines {
        program: old.map(Into::into),
        ..Engines::default()
    });
    under_load(&mut server, |server, load| {
        server.nodes()[0].replace();
        load.goes_on(8);
        // One of the old ones that dies now comes back, on what the new one made of the schema.
        server.nodes()[1].kill9();
        server.nodes()[1].restart();
        load.goes_on(4);
        server.workers()[0].replace();
        load.goes_on(4);
        server.nodes()[1].replace();
        server.workers()[1].replace();
        load.goes_on(4);
        server.nodes()[2].replace();
        load.goes_on(8);
    });
}
