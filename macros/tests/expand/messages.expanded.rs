const _: () = {
    use ::interline::__private;
    struct __Variants;
    impl __private::Variant<0usize> for __Variants {
        type Message = OrderPlaced;
    }
    impl __private::Variant<1usize> for __Variants {
        type Message = OrderCancelled;
    }
    const _: () = ::core::assert!(
        __private::all_distinct(< Orders as __private::Payload > ::CONTRACTS),
        "two variants of `Orders` hold messages of the same name"
    );
    impl __private::Payload for Orders {
        const CONTRACTS: &'static [&'static __private::Contract] = &[
            __private::variant_contract::<__Variants, 0usize>(),
            __private::variant_contract::<__Variants, 1usize>(),
        ];
        fn decode(
            encoded: __private::Encoded<'_>,
            message_type: ::core::option::Option<&::core::primitive::str>,
        ) -> ::core::result::Result<Self, __private::PayloadError> {
            if let ::core::option::Option::Some(found) = __private::variant::<
                __Variants,
                0usize,
            >(encoded, message_type) {
                return found.map(Self::Placed);
            }
            if let ::core::option::Option::Some(found) = __private::variant::<
                __Variants,
                1usize,
            >(encoded, message_type) {
                return found.map(Self::Cancelled);
            }
            ::core::result::Result::Err(__private::PayloadError::Unknown)
        }
    }
};
