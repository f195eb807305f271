"""One module per exchange: from the decoded Avro record to the named columns of `base.Trade`."""
