service!("billing");
