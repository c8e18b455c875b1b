# OpenBao for Ostiary in production. docs/vault.md tells the order of things; a test starts this very file.
# @WORDS@ are yours to fill in.

storage "raft" {
  path    = "@DATA@"
  node_id = "one"
}

listener "tcp" {
  address       = "@HOST@:@PORT@"
  tls_cert_file = "@TLS_CERTIFICATE@"
  tls_key_file  = "@TLS_KEY@"
}

api_addr     = "https://@HOST@:@PORT@"
cluster_addr = "https://@HOST@:@CLUSTER_PORT@"

# The key that unseals: 32 random bytes in hex, in a file only this server's user may read, and in a safe besides.
# Better where you have one: a cloud's KMS or an HSM (seal "awskms", "pkcs11", ...).
seal "static" {
  current_key_id = "@SEAL_KEY_ID@"
  current_key    = "file://@SEAL_KEY@"
}

# A vault that cannot write down what it is asked answers nothing. Have two of them, or watch the disk.
audit "file" "ostiary" {
  options {
    file_path = "@AUDIT_LOG@"
    mode      = "0600"
  }
}

# The first start, once: no root token is made. What it leaves is one AppRole that may write what
# `ostiary vault apply` writes, with exactly those values, and nothing else.
initialize "ostiary" {
  # Requests that end something have no id in their answers: this header field joins the two logs.
  request "correlation" {
    operation = "update"
    path      = "sys/config/auditing/request-headers/X-Correlation-Id"
    data = {
      hmac = false
    }
  }
  request "approle" {
    operation = "update"
    path      = "sys/auth/approle"
    data = {
      type = "approle"
    }
  }
  request "admin-policy" {
    operation = "update"
    path      = "sys/policies/acl/ostiary-admin"
    data = {
      policy = {
        eval_type   = "string"
        eval_source = "file"
        path        = "@ADMIN_POLICY@" # ostiary vault policy admin --config gateway.toml > FILE
      }
    }
  }
  request "admin" {
    operation = "update"
    path      = "auth/approle/role/ostiary-admin"
    data = {
      token_policies          = ["ostiary-admin"]
      token_no_default_policy = true
      token_ttl               = "10m"
      token_max_ttl           = "10m"
      # Its secret id lets in once, within the hour, and is gone: where it does not, somebody else was there first.
      secret_id_num_uses      = 1
      secret_id_ttl           = "1h"
    }
  }
  request "admin-id" {
    operation = "update"
    path      = "auth/approle/role/ostiary-admin/role-id"
    data = {
      role_id = "ostiary-admin"
    }
  }
  request "admin-secret" {
    operation = "update"
    path      = "auth/approle/role/ostiary-admin/custom-secret-id"
    data = {
      secret_id = {
        eval_type   = "string"
        eval_source = "env"
        env_var     = "OSTIARY_ADMIN_SECRET_ID" # yours, for one login; unset it after the first start
      }
    }
  }
}
