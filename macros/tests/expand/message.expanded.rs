const _: () = {
    use ::interline::__private;
    use ::interline::__private::serde_form as __form;
    impl __form::Form for OrderPlaced {}
    struct __Contract;
    impl __private::ShownField<0usize> for __Contract {
        type Field = OrderId;
    }
    impl __private::ShownField<1usize> for __Contract {
        type Field = String;
    }
    impl __private::Older<1u32> for __Contract {
        type Newer = OrderPlaced;
        type Message = OrderPlacedV1;
    }
    impl __private::Message for OrderPlaced {
        const CONTRACT: &'static __private::Contract = &__private::Contract::new(
                "OrderPlaced",
                "orders.{region}.placed",
                __private::Location {
                    file: ::core::file!(),
                    line: ::core::line!(),
                    column: ::core::column!(),
                },
            )
            .version(2u32)
            .keyed()
            .ttl(::core::time::Duration::from_millis(3600000u64));
        fn topic(
            &self,
        ) -> ::core::result::Result<
            __private::Cow<'static, ::core::primitive::str>,
            __private::TopicError,
        > {
            __private::render(
                Self::CONTRACT.topic,
                &[("region", __private::shown::<__Contract, 1usize>(&self.region))],
            )
        }
        fn key(&self) -> ::core::option::Option<__private::String> {
            __private::text::<__Contract, 0usize>(&self.order_id)
        }
        fn encode(
            &self,
            encoder: __private::Encoder<'_>,
        ) -> ::core::result::Result<__private::Bytes, __private::CodecError> {
            __form::encode(self, encoder)
        }
        fn decode(
            encoded: __private::Encoded<'_>,
        ) -> ::core::result::Result<Self, __private::CodecError> {
            if let ::core::option::Option::Some(older) = __private::upcast::<
                __Contract,
                1u32,
            >(encoded) {
                return older;
            }
            __form::decode(encoded)
        }
    }
    impl __private::Keyed for OrderPlaced {}
};
