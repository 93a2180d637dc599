"""The only room that knows Ray: attempts of trials on warm workers, fed from the ledger of one study."""
