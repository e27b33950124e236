package keys_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"shoal/keys"
)

func ExampleVerify() {
	alice, err := keys.Generate("release-alice@acme")
	if err != nil {
		log.Fatal(err)
	}
	msg := []byte(`{"sequence": 43}`)
	sig, err := alice.Sign(context.Background(), "shoal.manifest.v1", msg)
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println(keys.Verify(alice.Public(), "shoal.manifest.v1", msg, sig))
	// What was signed as one type of document is nothing as another.
	fmt.Println(keys.Verify(alice.Public(), "shoal.root.v1", msg, sig))
	// Output:
	// <nil>
	// signature is for namespace "shoal.manifest.v1", want "shoal.root.v1"
}

func ExampleRole() {
	ctx, msg := context.Background(), []byte(`{"sequence": 43}`)
	role := keys.Role{Threshold: 2}
	var signers []keys.Signer
	for _, name := range []string{"alice", "bob", "carol"} {
		s, err := keys.Generate(name)
		if err != nil {
			log.Fatal(err)
		}
		signers = append(signers, s)
		role.Keys = append(role.Keys, s.Public())
	}

	var signatures []keys.Entry
	for _, s := range signers[1:] { // bob, then carol
		sig, err := s.Sign(ctx, "shoal.manifest.v1", msg)
		if err != nil {
			log.Fatal(err)
		}
		signatures = append(signatures, keys.Entry{KeyID: s.Public().ID(), Sig: sig})

		signed, err := role.Verify("shoal.manifest.v1", msg, signatures)
		if errors.Is(err, keys.ErrThreshold) {
			fmt.Println(err)
			continue
		}
		fmt.Println(len(signed), "signed, as many as needed")
	}
	// Output:
	// 1 of 2 required signatures
	// 2 signed, as many as needed
}
